"""P(answer) of a spec's questions for pictures that exist already."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from dualproc_cli.compiler import CompositeLoss, compile_loss
from dualproc_cli.picture_files import load_picture
from dualproc_cli.spec import LoadedSpec
from dualproc_cli.vlm import load_vlm


def score(paths: Sequence[Path], loaded: LoadedSpec, device: torch.device) -> list[dict[str, float]]:
    """Ask every question of ``loaded`` about every picture, visual prompts drawn at the picture's own size.

    Returns:
        for each picture P(answer) by question name.

    Raises:
        UserError: a picture or the VLM cannot be read.
    """
    pictures = [load_picture(path) for path in paths]
    transformers_logging.disable_progress_bar()
    vlm = load_vlm(loaded.spec.vlm, device)
    compiled: dict[tuple[int, int], CompositeLoss] = {}
    scores = []
    for picture in pictures:
        height, width = picture.shape[-2:]
        if (height, width) not in compiled:
            compiled[height, width] = compile_loss(loaded, vlm, height, width)
        with torch.no_grad():
            report = compiled[height, width](picture[None].to(device))
        scores.append({name: values.item() for name, values in report.probabilities.items()})
    return scores
