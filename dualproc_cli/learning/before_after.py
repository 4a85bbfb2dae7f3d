"""The pictures of a bundle: the base generator's, and those of the learned control."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from dualproc_cli.drawing import draw_pictures, held_out_seeds
from dualproc_cli.file_names import slugs
from dualproc_cli.generator import Generator
from dualproc_cli.pictures import Section, Strip, labelled_grid, to_pil
from dualproc_cli.spec import ControlSpec

TRAINED, HELD_OUT, SEEDS = 3, 2, 4  # prompts of either kind, and pictures of each


@dataclass(frozen=True)
class BeforeAfter:
    """Pictures of the same prompts and held-out seeds, without the adapter and with it.

    Attributes:
        prompts: P prompts, those learned on first.
        seeds: S seeds.
        base: [P, S, 3, H, W] in [0, 1].
        learned: the same with the adapter.
        held_out: the prompts that were not learned on.
    """

    prompts: list[str]
    seeds: list[int]
    base: Tensor
    learned: Tensor
    held_out: set[str]

    def grid(self) -> Image.Image:
        """Lay out all pictures: a section for each prompt, with the base pictures above the learned ones."""
        return labelled_grid(
            [
                Section(
                    f"{prompt} (held out)" if prompt in self.held_out else prompt,
                    [Strip("base", base), Strip("learned", learned)],
                )
                for prompt, base, learned in zip(self.prompts, self.base, self.learned, strict=True)
            ]
        )

    def files(self) -> dict[str, Image.Image]:
        """Return the learned pictures by file name."""
        return {
            f"{slug}-{seed}.png": to_pil(image)
            for slug, images in zip(slugs(self.prompts), self.learned, strict=True)
            for seed, image in zip(self.seeds, images, strict=True)
        }


def draw_before_after(generator: Generator, spec: ControlSpec) -> BeforeAfter:
    """Draw a few prompts, learned on and held out, at held-out seeds."""
    held_out = spec.prompts.held_out[:HELD_OUT]
    prompts = [*spec.prompts.train[:TRAINED], *held_out]
    seeds = held_out_seeds(SEEDS)
    learned = _draw(generator, prompts, seeds)
    with generator.without_adapter():
        base = _draw(generator, prompts, seeds)
    return BeforeAfter(prompts, seeds, base, learned, set(held_out))


def _draw(generator: Generator, prompts: list[str], seeds: list[int]) -> Tensor:
    """Return the pictures [P, S, 3, H, W] on the CPU."""
    return torch.stack(
        [
            torch.stack(list(draw_pictures(generator, prompt, seeds, batch_size=len(seeds)))).cpu()
            for prompt in prompts
        ]
    )
