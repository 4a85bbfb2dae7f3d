"""Finding what a text names in pictures, by a zero-shot detector."""

from typing import TYPE_CHECKING

from dualproc_cli.measures.pretrained import Loaded, batches

if TYPE_CHECKING:
    from torch import Tensor

OVERLAP = 0.5  # intersection over union above which two boxes show the same object


def detect(loaded: Loaded, images: "Tensor", label: str, threshold: float) -> "list[Tensor]":
    """Return the boxes of what ``label`` names in each of images [N, 3, H, W], the most certain first.

    Returns:
        for each picture [K, 4]: left, top, right and bottom, as fractions of its width and height.
    """
    from torchvision.ops import nms

    height, width = images.shape[-2:]
    found = []
    for pictures in batches(images):
        texts = [[label]] * len(pictures)
        detected = loaded.processor.post_process_grounded_object_detection(
            loaded(images=pictures, text=texts, truncation=True),  # OWLv2 reads 16 tokens
            threshold=threshold,
            target_sizes=[(height, width)] * len(pictures),
            text_labels=texts,
        )
        for one in detected:
            # Grounding DINO names what it found by the words that fit: by none where nothing does.
            named = [index for index, text in enumerate(one["text_labels"]) if text.strip()]
            boxes, scores = one["boxes"][named].float().cpu(), one["scores"][named].float().cpu()
            kept = boxes[nms(boxes, scores, OVERLAP)]
            found.append(kept / kept.new_tensor([width, height, width, height]))
    return found
