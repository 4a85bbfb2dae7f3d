"""Loading picture files as tensors."""

from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from dualproc_cli.errors import UserError
from dualproc_cli.spec.pictures import PictureFault, read_picture


def load_picture(path: Path) -> Tensor:
    """Read a PNG, JPEG or WebP file as [3, H, W] in [0, 1], upright, transparent pixels laid on white.

    Raises:
        UserError: the file is missing, of another format, damaged or too large.
    """
    return to_tensor(open_picture(path))


def open_picture(path: Path) -> Image.Image:
    """Read such a file as 8-bit RGB.

    Raises:
        UserError: the file is missing, of another format, damaged or too large.
    """
    try:
        return read_picture(path)
    except PictureFault as fault:
        raise UserError(f"{path}: {fault.problem} (expected {fault.expected})") from fault


def to_tensor(picture: Image.Image) -> Tensor:
    """Return an RGB picture as [3, H, W] in [0, 1]."""
    return pil_to_tensor(picture).float() / 255
