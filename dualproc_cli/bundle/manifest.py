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
    """How the run ended that the adapter comes from."""

    reason: Literal["steps", "stop_at", "interrupted", "not-finite", "out-of-memory"]
    step: int
    """The adapter is that after so many steps."""
    seconds: float
    """Wall time of the run, from its last start: loading, learning, drawing."""


class Revisions(_Part):
    """The commits that hub models were resolved to, or the miniature's weights; None for local folders."""

    generator: str | None
    vlm: str | None


class Manifest(_Part):
    """All of ``bundle.json``."""

    format: int
    name: str
    spec: dict[str, Any]
    """The resolved spec, every default and preset written out."""
    spec_digest: str
    overrides: dict[str, Any]
    """What ``--set`` said, by dotted key; ``spec.yaml`` is without it."""
    origins: dict[str, str]
    """Where each value of the resolved spec came from."""
    revisions: Revisions
    versions: dict[str, str]
    seed: int
    outcome: Outcome
    metrics: list[StepMetrics]
    files: dict[str, str] = Field(min_length=1)
    """SHA-256 of every other file, by its path with forward slashes."""

    def to_json(self) -> str:
        """Readable JSON, and strict: a number that is none stands as null nowhere, it is refused."""
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
    """Version of each library that decides what is learned, ours and Python's."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"dualproc": __version__, "python": python_version(), **libraries}
