"""What a VLM sees of a picture: the picture after its own processor has resized and cropped it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import ProcessorMixin

from dualproc_cli.vlm.chat import picture_inputs

PIXELS = "pixel_values"


class _Resizes(TorchFunctionMode):
    """Remembers the largest picture that is resized inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is F.interpolate and (self.largest is None or out[0, 0].numel() > self.largest[0, 0].numel()):
            self.largest = out
        return out


@torch.no_grad()
def seen_by(processor: ProcessorMixin, image: Tensor) -> Tensor:
    """Return a picture [3, H, W] in [0, 1] as the model of ``processor`` sees it: [3, h, w] in [0, 1].

    Every family's processor hands its model something else: a picture, tiles of it, rows of patches. What
    they have in common is that they resize it before. Where that happens several times, for tiles and a
    thumbnail, the largest counts. Padding is left out; what is cut off at the edges is not there.
    """
    with _Resizes() as resizes:
        inputs = picture_inputs(processor, [[image.float()]], (PIXELS,))
    seen = image if resizes.largest is None else resizes.largest[0].clamp(0, 255) / 255
    values = inputs[PIXELS]
    if values.ndim == 4 and len(values) == 1:  # one picture: smaller than it was resized to, it was cropped
        height, width = (min(pair) for pair in zip(seen.shape[1:], values.shape[2:], strict=True))
        top, left = (seen.shape[1] - height) // 2, (seen.shape[2] - width) // 2
        seen = seen[:, top : top + height, left : left + width]
    return seen
