"""How well pictures fit texts, by a model of CLIP's or SigLIP's shape."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualproc_cli.measures.pretrained import Loaded, batches

if TYPE_CHECKING:
    from torch import Tensor


def compare(loaded: Loaded, images: "Tensor", texts: Sequence[str]) -> "tuple[Tensor, Tensor]":
    """Compare each of images [N, 3, H, W] with its own of N texts.

    Returns:
        the cosine [N] of their embeddings, and the model's own logit [N]: the cosine times its scale, with
        its bias if it has one.
    """
    import torch

    distinct = list(dict.fromkeys(texts))
    own = torch.tensor([distinct.index(text) for text in texts])
    length = loaded.model.config.text_config.max_position_embeddings
    cosines, logits, start = [], [], 0
    for pictures in batches(images):
        # Padded to the full length, as SigLIP was trained; CLIP does not see the padding.
        found = loaded(
            images=pictures, text=distinct, padding="max_length", max_length=length, truncation=True
        )
        mine = own[start : start + len(pictures)].to(loaded.device)
        texts_embedded = torch.nn.functional.normalize(found.text_embeds, dim=-1)[mine]
        cosines.append((torch.nn.functional.normalize(found.image_embeds, dim=-1) * texts_embedded).sum(-1))
        logits.append(found.logits_per_image.gather(1, mine[:, None])[:, 0])
        start += len(pictures)
    return torch.cat(cosines).float().cpu(), torch.cat(logits).float().cpu()
