"""What to draw, with which learned controls. No torch is imported: a mistyped bundle is reported at once."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from dualproc_cli import __version__
from dualproc_cli.bundle import Bundle
from dualproc_cli.bundle.layout import ADAPTER
from dualproc_cli.errors import UserError
from dualproc_cli.file_names import slugs
from dualproc_cli.spec import GeneratorSpec
from dualproc_cli.spec.faults import shortened
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.spec.presets import generator_settings

BATCH = 4  # pictures drawn at once


@dataclass(frozen=True)
class Control:
    """A bundle and how strongly it acts.

    Attributes:
        bundle: the learned control.
        scale: 0 has no effect, 1 is as it was learned.
    """

    bundle: Bundle
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Control":
        """Open ``BUNDLE`` or ``BUNDLE@SCALE``.

        Raises:
            UserError: there is no such bundle, or the scale is not a finite number.
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
        """The control's name: ``horizon-low``, or ``horizon-low@0.5`` at another scale than 1."""
        name = self.bundle.manifest.name
        return name if self.scale == 1 else f"{name}@{self.scale:g}"


@dataclass(frozen=True)
class Job:
    """Pictures to draw.

    Attributes:
        spec: the generator.
        controls: the learned controls that act.
        prompts: what to draw, each once.
        seeds: one picture of every prompt for each.
        steps: denoising steps.
        folder: where the pictures go.
    """

    spec: GeneratorSpec
    controls: Sequence[Control]
    prompts: Sequence[str]
    seeds: range
    steps: int
    folder: Path

    @cached_property
    def files(self) -> dict[tuple[str, int], Path]:
        """The file of each prompt and seed."""
        names = dict(zip(self.prompts, slugs(self.prompts), strict=True))
        return {
            (prompt, seed): self.folder / f"{names[prompt]}-{seed}.png"
            for prompt in self.prompts
            for seed in self.seeds
        }

    def metadata(self, prompt: str, seed: int, revision: str | None) -> dict[str, str]:
        """Return what a picture's file says of it: texts by keyword.

        ``dualproc`` is JSON: prompt, seed, steps, the generator with its revision, and each control with its
        scale, the digest of its spec and that of its adapter.
        """
        controls = [
            {
                "name": control.bundle.manifest.name,
                "scale": control.scale,
                "spec": control.bundle.manifest.spec_digest,
                "adapter": control.bundle.manifest.files[ADAPTER],
            }
            for control in self.controls
        ]
        facts = {
            "prompt": prompt,
            "seed": seed,
            "steps": self.steps,
            "guidance_scale": self.spec.guidance_scale,
            "generator": {"model": self.spec.model, "revision": revision},
            "controls": controls,
        }
        return {
            "Software": f"dualproc {__version__}",
            "Description": prompt,
            "dualproc": json.dumps(facts, ensure_ascii=False),
        }


def generator_for(controls: Sequence[Control], model: str | None) -> GeneratorSpec:
    """Return the generator that ``controls`` were learned for, drawing as the first one's spec says.

    Without controls it is ``model``, by default the miniature, with the values of its preset.

    Raises:
        UserError: ``model`` cannot be a model's name, or the controls were learned for different
            generators, or for another one than ``model``.
    """
    if not controls:
        model = model or MINIATURE
        try:
            return GeneratorSpec(model=model, **generator_settings(model))
        except ValidationError as error:
            raise UserError(
                f"--model {shortened(model)}: expected a hub id, a folder or miniature"
            ) from error
    first, *others = controls
    spec = first.bundle.loaded.generator
    if model not in (None, spec.model):
        raise UserError(
            f"--model {model}: {first.bundle.source} was made for another generator, {spec.model}; "
            "leave --model out"
        )
    for other in others:
        found = other.bundle.spec.generator
        if (found.model, found.revision, found.base) != (spec.model, spec.revision, spec.base):
            raise UserError(
                f"{other.bundle.source}: made for another generator, {_identity(found)}, than "
                f"{first.bundle.source}, {_identity(spec)}; draw controls of one generator together"
            )
        if other.bundle.stands_on != first.bundle.stands_on:
            raise UserError(
                f"{other.bundle.source}: learned on top of other adapters than {first.bundle.source} (see "
                "generator.adapters in their specs); draw controls together that stand on the same ones"
            )
    return spec


def default_prompts(controls: Sequence[Control]) -> list[str]:
    """Return the prompts that the controls were learned on, each once.

    Raises:
        UserError: there is no control to take them from.
    """
    if not controls:
        raise UserError("no prompt: give at least one, or a --control whose prompts are to be drawn")
    return list(dict.fromkeys(prompt for control in controls for prompt in control.bundle.spec.prompts.train))


def _identity(spec: GeneratorSpec) -> str:
    return f"{spec.model} at {spec.revision[:12]}" if spec.revision else spec.model
