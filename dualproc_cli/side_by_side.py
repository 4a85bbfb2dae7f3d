"""The same prompts and seeds drawn by two controls, as one picture."""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.bundle import Bundle
from dualproc_cli.drawing import draw_pictures, held_out_seeds
from dualproc_cli.memory import plan_drawing
from dualproc_cli.pictures import Section, Strip, labelled_grid
from dualproc_cli.stages import stage

BATCH = 4  # pictures drawn at once


def side_by_side(
    bundles: Sequence[Bundle], labels: Sequence[str], prompts: Sequence[str], count: int, device: torch.device
) -> Image.Image:
    """Draw ``prompts`` at ``count`` held-out seeds with each bundle's control.

    Args:
        bundles: each draws with its own generator, as its spec says, at sizes that are equal.
        labels: one for each bundle.
        prompts: what to draw.
        count: pictures per prompt and bundle.
        device: where the generators run.

    Returns:
        One picture: a section for each prompt with a row for each bundle.

    Raises:
        UserError: a generator cannot be loaded, or an adapter does not fit it.
    """
    seeds = held_out_seeds(count)
    drawn = [_draw(bundle, prompts, seeds, device) for bundle in bundles]
    return labelled_grid(
        [
            Section(prompt, [Strip(label, rows[prompt]) for label, rows in zip(labels, drawn, strict=True)])
            for prompt in prompts
        ]
    )


def _draw(
    bundle: Bundle, prompts: Sequence[str], seeds: Sequence[int], device: torch.device
) -> dict[str, Tensor]:
    """Return the pictures [N, 3, H, W] of each prompt, on the CPU."""
    spec = bundle.spec.generator.model_copy(update={"compile": False})
    more = bundle.spec.memory == "auto"
    plan = plan_drawing(spec, prompts, bundle.manifest.memory, min(len(seeds), BATCH), device, more)
    generator = plan.load_generator()
    generator.load_adapters([(bundle.folder, 1.0)])
    found = {}
    for prompt in prompts:
        stage(f"{bundle.source}: drawing {prompt}")
        found[prompt] = torch.stack([image.cpu() for image in draw_pictures(generator, prompt, seeds, BATCH)])
    return found
