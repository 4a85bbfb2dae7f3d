"""``bundle.json``: what a bundle holds, how it came about, and the digest of every file."""

import json
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dualproc_cli import __version__
from dualproc_cli.bundle.layout import MANIFEST
from dualproc_cli.errors import UserError
from dualproc_cli.metrics import StepMetrics

FORMAT = 1
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(_Part):
    """How the run ended that the adapter comes from.

    Attributes:
        reason: why it ended.
        step: how many steps the adapter has learned.
        seconds: wall time from the run's last start: loading, learning, drawing.
    """

    reason: Literal["steps", "stop_at", "interrupted", "not-finite", "out-of-memory"]
    step: int
    seconds: float


class Revisions(_Part):
    """The commits of the models of the run: of the hub, or the miniature's weights; None if there is none.

    Attributes:
        generator: of the generator.
        vlm: of the VLM.
        evaluate_vlm: of the second VLM, which judges and was not trained against.
    """

    generator: str | None
    vlm: str | None
    evaluate_vlm: str | None


class Manifest(_Part):
    """All of ``bundle.json``.

    Attributes:
        format: version of this format.
        name: of the control.
        spec: the resolved spec, with every default and preset written out.
        spec_digest: SHA-256 of its canonical form.
        overrides: what ``--set`` said, by dotted key; ``spec.yaml`` does not hold it.
        origins: where each value of the resolved spec came from, by dotted key.
        revisions: of the models.
        memory: the memory strategies in force while learning, in the order in which they were taken.
        versions: of the libraries, dualproc and Python.
        seed: of everything that was drawn at random.
        outcome: how the run ended.
        metrics: of every step.
        files: SHA-256 of every other file, by its path with forward slashes.
    """

    format: int
    name: str
    spec: dict[str, Any]
    spec_digest: str
    overrides: dict[str, Any]
    origins: dict[str, str]
    revisions: Revisions
    memory: list[str]
    versions: dict[str, str]
    seed: int
    outcome: Outcome
    metrics: list[StepMetrics]
    files: dict[str, str] = Field(min_length=1)

    def to_json(self) -> str:
        """Return readable JSON.

        Raises:
            ValueError: a number is NaN or infinite, which JSON cannot hold.
        """
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a bundle.

        Raises:
            UserError: there is none, it is damaged, or a newer version of dualproc wrote it.
        """
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError as error:
            raise UserError(f"{folder}: not a bundle, it has no {MANIFEST}") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        found = data.get("format") if isinstance(data, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise UserError(
                f"{path}: format {found} is newer than this dualproc reads (expected {FORMAT}); "
                "pip install -U dualproc"
            )
        if found != FORMAT:
            raise UserError(f"{path}: expected a bundle of format {FORMAT}, found {found!r:.40}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: {where}: {first['msg']}; the file was changed or damaged") from error


def library_versions() -> dict[str, str]:
    """Return the version of each library that decides what is learned, of dualproc and of Python."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"dualproc": __version__, "python": python_version(), **libraries}
