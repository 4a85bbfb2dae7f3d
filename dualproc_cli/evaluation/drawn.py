"""The pictures of an evaluation: drawn once, and kept for every model and measure that judges them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualproc_cli.drawing import draw_pictures
from dualproc_cli.evaluation.album import Album
from dualproc_cli.evaluation.ask import BATCH
from dualproc_cli.evaluation.tally import HELD_OUT, TRAINED, Column
from dualproc_cli.generator import Generator
from dualproc_cli.measures import Evidence
from dualproc_cli.pictures import eight_bits
from dualproc_cli.spec import ControlSpec


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures of one prompt at all seeds, as files hold them: a byte for each value.

    Attributes:
        column: which generator drew them, and whether the prompt is held out.
        prompt: what they show.
        pixels: [N, 3, H, W] uint8, on the CPU.
        base_pixels: the base generator's of the same seeds; for the base, the same tensor.
    """

    column: Column
    prompt: str
    pixels: Tensor
    base_pixels: Tensor

    @property
    def images(self) -> Tensor:
        """The pictures as [N, 3, H, W] in [0, 1]."""
        return self.pixels.float() / 255

    def evidence(self, spec: ControlSpec) -> Evidence:
        """Return what measures are given."""
        base = self.base_pixels.float() / 255
        return Evidence(self.images, spec, base, [self.prompt] * len(self.pixels))


def draw_both(
    spec: ControlSpec,
    generator: Generator,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    album: Album | None = None,
    known: dict[str, Tensor] | None = None,
) -> list[Drawn]:
    """Draw every prompt with the base generator and with the control.

    Args:
        spec: names the prompts.
        generator: with the learned adapter.
        seeds: that every prompt is drawn at.
        progress: called with the number of pictures done and their total.
        album: where some of the pictures are kept.
        known: pixels of the base generator's at these seeds, by prompt; those that are drawn are added.
    """
    bases = {} if known is None else known
    found: list[Drawn] = []
    total = 2 * len(seeds) * len(spec.prompts.all)
    for prompts, (base, learned) in ((spec.prompts.train, TRAINED), (spec.prompts.held_out, HELD_OUT)):
        for prompt in prompts:
            if prompt not in bases:
                with generator.without_adapter():
                    bases[prompt] = draw(generator, prompt, seeds)
            original = bases[prompt]
            found.append(Drawn(base, prompt, original, original))
            progress(len(found) * len(seeds), total)
            found.append(Drawn(learned, prompt, draw(generator, prompt, seeds), original))
            if album:
                album.add(prompt, base == HELD_OUT[0], found[-2].images, found[-1].images)
            progress(len(found) * len(seeds), total)
    return found


@torch.no_grad()
def draw(generator: Generator, prompt: str, seeds: Sequence[int]) -> Tensor:
    """Return what ``generator`` draws now, as files hold it: [N, 3, H, W] uint8, on the CPU."""
    return torch.stack([eight_bits(image) for image in draw_pictures(generator, prompt, seeds, BATCH)])
