"""Train small models that judge pictures of the miniature's world.

    python examples/train_judges.py FOLDER [depth] [detector] [segmenter] [image-text] [features]

They are real classes of transformers, from a configuration: a Depth Anything, an OWLv2, a SegFormer, a CLIP
and a DINOv2. The renderer gives the exact depth of every pixel, the place of every subject, what is sky and
what a picture shows. `measures.py` tries the measures that need a model with them. They know this world
alone, and are not shipped.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForSemanticSegmentation,
    AutoModelForZeroShotObjectDetection,
    AutoProcessor,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from small_judges import make_clip, make_depth, make_features, make_owlv2, make_segmenter

from dualproc_cli.miniature.world.captions import captions
from dualproc_cli.miniature.world.render import Rendering, render
from dualproc_cli.miniature.world.scene import LOOKS, NOBODY, SIZE, SUBJECTS, Scene, sample_scenes
from dualproc_cli.miniature.world.subjects import EXTENT

BATCH, WIDTH, LAYERS = 16, 64, 4
DEPTH_STEPS, DETECTOR_STEPS, SEGMENTER_STEPS, IMAGE_TEXT_STEPS, FEATURES_STEPS = 3500, 6000, 1500, 1500, 3000
RATE = 2e-3
LABELS = [f"a {name}" for name in SUBJECTS]
PARTS = ("subject", "sky", "ground")


def main() -> None:
    trainings = {
        "depth": train_depth,
        "detector": train_detector,
        "segmenter": train_segmenter,
        "image-text": train_image_text,
        "features": train_features,
    }
    for name in sys.argv[2:] or trainings:
        started = time.monotonic()
        trainings[name](Path(sys.argv[1], name))
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)


def train_depth(folder: Path) -> None:
    """Learn the closeness of every pixel, as a share of the picture's height: larger is nearer."""
    make_depth(folder, width=WIDTH, layers=LAYERS)
    model = anew(AutoModelForDepthEstimation, folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    def loss(scenes: Scene) -> Tensor:
        drawn = render(scenes)
        predicted = model(pixel_values=normalised(drawn.images, processor)).predicted_depth
        return (predicted - drawn.closeness / SIZE).abs().mean()

    learn(model, loss, DEPTH_STEPS)
    model.save_pretrained(folder)


def train_detector(folder: Path) -> None:
    """Learn which subject is where: each patch of the picture says what its box shows.

    The patch that holds the middle of a subject is to name it, by a focal loss, and to give its box.
    """
    make_owlv2(folder, width=WIDTH, layers=LAYERS)
    model = anew(AutoModelForZeroShotObjectDetection, folder)
    for module in [*model.class_head.modules(), *model.box_head.modules()]:
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()  # its authors' weights of deviation 1 would saturate every box
    processor = AutoProcessor.from_pretrained(folder)
    texts = processor(text=[LABELS] * BATCH, padding=True, return_tensors="pt")

    def loss(scenes: Scene) -> Tensor:
        boxes, kinds, here = subject_boxes(scenes)
        pixels = normalised(render(scenes).images, processor.image_processor)
        found = model(pixel_values=pixels, **texts)
        side = round(found.logits.shape[1] ** 0.5)
        cell = (boxes[..., :2].clamp(0, 0.999) * side).long()
        patch, row = cell[..., 1] * side + cell[..., 0], torch.arange(len(kinds))[:, None].expand_as(kinds)
        wanted = torch.zeros_like(found.logits)
        wanted[row[here], patch[here], kinds[here]] = 1
        certainty = torch.where(wanted > 0, found.logits.sigmoid(), 1 - found.logits.sigmoid())
        plain = F.binary_cross_entropy_with_logits(found.logits, wanted, reduction="none")
        named = ((1 - certainty).square() * plain).sum() / here.sum()
        placed = (found.pred_boxes[row[here], patch[here]] - boxes[here]).abs().sum(-1).mean()
        return named + 5 * placed

    learn(model, loss, DETECTOR_STEPS)
    model.save_pretrained(folder)


def train_segmenter(folder: Path) -> None:
    """Learn which pixels show a subject, the sky or the ground."""
    make_segmenter(folder, PARTS)
    model = anew(AutoModelForSemanticSegmentation, folder)
    processor = AutoImageProcessor.from_pretrained(folder)

    def loss(scenes: Scene) -> Tensor:
        drawn = render(scenes)
        logits = model(pixel_values=normalised(drawn.images, processor)).logits
        return F.cross_entropy(F.interpolate(logits, size=(SIZE, SIZE), mode="bilinear"), parts(drawn))

    learn(model, loss, SEGMENTER_STEPS)
    model.save_pretrained(folder)


def parts(drawn: Rendering) -> Tensor:
    """Return which of PARTS each pixel shows, [B, H, W]."""
    subject = drawn.subject.sum(1)
    return torch.stack([subject, 1 - subject - drawn.ground, drawn.ground], 1).argmax(1)


def train_image_text(folder: Path) -> None:
    """Learn which of a batch's captions belongs to which of its pictures, as CLIP does.

    Scenes of the same subjects and look share their captions: each is right for all of them.
    """
    make_clip(folder, width=WIDTH, layers=LAYERS)
    model = anew(AutoModel, folder)
    processor = AutoProcessor.from_pretrained(folder)
    rng = torch.Generator().manual_seed(1)

    def loss(scenes: Scene) -> Tensor:
        texts = processor(
            text=captions(scenes.kind, scenes.look, rng), padding="max_length", return_tensors="pt"
        )
        pixels = normalised(render(scenes).images, processor.image_processor)
        logits = model(pixel_values=pixels, **texts).logits_per_image
        shown = contents(scenes)
        same = (shown[:, None] == shown).all(-1).float()
        wanted = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2

    learn(model, loss, IMAGE_TEXT_STEPS, batch=4 * BATCH)
    model.save_pretrained(folder)


def train_features(folder: Path) -> None:
    """Learn features from which a linear layer tells what a picture shows: its subjects and its look."""
    make_features(folder, width=WIDTH, layers=LAYERS)
    model = anew(AutoModel, folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    kinds = [len(SUBJECTS), len(SUBJECTS) + 1, len(LOOKS)]
    model.head = torch.nn.Linear(WIDTH, sum(kinds))

    def loss(scenes: Scene) -> Tensor:
        pooled = model(pixel_values=normalised(render(scenes).images, processor)).pooler_output
        near, far, look = model.head(pooled).split(kinds, 1)
        shown = zip((near, far, look), (*scenes.kind.unbind(1), scenes.look), strict=True)
        return sum(F.cross_entropy(logits, wanted % logits.shape[1]) for logits, wanted in shown)

    learn(model, loss, FEATURES_STEPS)
    del model.head
    model.save_pretrained(folder)


def contents(scenes: Scene) -> Tensor:
    """Return what captions say of scenes, [B, 3]: their subjects and their look."""
    return torch.cat([scenes.kind, scenes.look[:, None]], 1)


def subject_boxes(scenes: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes [B, 2, 4] of both subjects (middle, width, height), their kinds, and who is there."""
    extent = torch.tensor([EXTENT[name] for name in SUBJECTS])[scenes.kind.clamp(min=0)]
    half, tall = (extent * scenes.scale[..., None]).unbind(-1)
    boxes = torch.stack([scenes.x, scenes.base - tall / 2, 2 * half, tall], -1) / SIZE
    return boxes, scenes.kind, scenes.kind != NOBODY


def anew(kind: Any, folder: Path) -> torch.nn.Module:
    """Return the model that ``folder`` describes, with weights as its authors start them."""
    torch.manual_seed(0)
    return kind.from_config(AutoConfig.from_pretrained(folder))


def learn(model: torch.nn.Module, loss_of: Callable[[Scene], Tensor], steps: int, batch: int = BATCH) -> None:
    """Take steps of AdamW on scenes that are drawn anew for each."""
    model.train()
    rng = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in range(steps):
        loss = loss_of(sample_scenes(batch, rng, pairs=0.5))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    model.eval()


def normalised(images: Tensor, processor: Any) -> Tensor:
    """Return images [B, 3, 64, 64] in [0, 1] as the processor would give them, without its resizing."""
    mean, std = (torch.tensor(values) for values in (processor.image_mean, processor.image_std))
    return (images - mean[:, None, None]) / std[:, None, None]


if __name__ == "__main__":
    main()
