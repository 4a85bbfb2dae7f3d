"""Drawing with learned controls."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dualproc_cli.bundle import Bundle
from dualproc_cli.errors import UserError
from dualproc_cli.spec import GeneratorSpec
from dualproc_cli.spec.model import MINIATURE
from dualproc_cli.spec.presets import presets

if TYPE_CHECKING:  # torch takes seconds to import: a mistyped bundle is answered without it
    from torch import Tensor

    from dualproc_cli.generator import Generator

BATCH = 4  # pictures drawn at once


@dataclass(frozen=True)
class Control:
    """A bundle and how strongly it acts: 0 not at all, 1 as it was learned."""

    bundle: Bundle
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Control":
        """Open ``BUNDLE`` or ``BUNDLE@SCALE``.

        Raises:
            UserError: no such bundle, or the scale is no finite number.
        """
        path, at, scale = text.rpartition("@")
        if not at or Path(text).exists():
            return cls(Bundle.open(Path(text)))
        try:
            factor = float(scale)
        except ValueError:
            factor = math.nan
        if not math.isfinite(factor):
            raise UserError(
                f"--control {text}: expected BUNDLE@SCALE with a number for the scale, such as {path}@0.5"
            )
        return cls(Bundle.open(Path(path)), factor)

    @property
    def label(self) -> str:
        """``horizon-low``, or ``horizon-low@0.5`` at another scale than 1."""
        name = self.bundle.manifest.name
        return name if self.scale == 1 else f"{name}@{self.scale:g}"


def generator_for(controls: Sequence[Control], model: str | None) -> GeneratorSpec:
    """The generator that ``controls`` were learned for, drawing as the first one's spec says.

    Without controls it is ``model``, by default the miniature, as its preset has it.

    Raises:
        UserError: the controls were learned for different generators, or for another one than ``model``.
    """
    if not controls:
        model = model or MINIATURE
        return GeneratorSpec(model=model, **presets().get(model, {}).get("generator", {}))
    first, *others = controls
    spec = first.bundle.spec.generator
    if model not in (None, spec.model):
        raise UserError(
            f"--model {model}: {first.bundle.source} was made for another generator, {spec.model}; "
            "leave --model out"
        )
    for other in others:
        found = other.bundle.spec.generator
        if (found.model, found.revision) != (spec.model, spec.revision):
            raise UserError(
                f"{other.bundle.source}: made for another generator, {_identity(found)}, than "
                f"{first.bundle.source}, {_identity(spec)}; draw controls of one generator together"
            )
    return spec


def default_prompts(controls: Sequence[Control]) -> list[str]:
    """The prompts that the controls were learned on, each once.

    Raises:
        UserError: there is no control to take them from.
    """
    if not controls:
        raise UserError("no prompt: give at least one, or a --control whose prompts are to be drawn")
    return list(dict.fromkeys(prompt for control in controls for prompt in control.bundle.spec.prompts.train))


def draw(
    generator: "Generator", prompts: Sequence[str], seeds: Sequence[int], steps: int | None
) -> Iterator[tuple[str, int, "Tensor"]]:
    """Draw every prompt at every seed: prompt, seed, and the picture [3, H, W] in [0, 1] on the CPU."""
    for prompt in prompts:
        for start in range(0, len(seeds), BATCH):
            batch = seeds[start : start + BATCH]
            images = generator.render([prompt] * len(batch), batch, steps=steps).cpu()
            for seed, image in zip(batch, images, strict=True):
                yield prompt, seed, image


def _identity(spec: GeneratorSpec) -> str:
    return f"{spec.model} at {spec.revision[:12]}" if spec.revision else spec.model
