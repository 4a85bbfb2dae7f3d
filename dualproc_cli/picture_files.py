"""Loading picture files as tensors."""

from pathlib import Path

from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from dualproc_cli.errors import UserError
from dualproc_cli.spec.pictures import PictureFault, read_picture


def load_picture(path: Path) -> Tensor:
    """Read a PNG, JPEG or WebP file as [3, H, W] in [0, 1], upright, transparent pixels laid on white.

    Raises:
        UserError: the file is missing, of another format, damaged or too large.
    """
    try:
        picture = read_picture(path)
    except PictureFault as fault:
        raise UserError(f"{path}: {fault.problem} (expected {fault.expected})") from fault
    return pil_to_tensor(picture).float() / 255
