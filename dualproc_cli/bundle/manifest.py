"""``bundle.json``: what a bundle holds, how it was made, and the digests of every file and of itself.

The digests show whether a bundle was changed, by accident or by somebody who left them as they were. They do
not show who made it: whoever writes a bundle can compute them. The digest of ``bundle.json`` stands for all
of the bundle; where it was published by somebody who is trusted, it identifies the bundle.
"""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from dualproc_cli import __version__
from dualproc_cli.bundle.layout import MANIFEST
from dualproc_cli.errors import UserError
from dualproc_cli.files import require_regular
from dualproc_cli.metrics import StepMetrics, Validation
from dualproc_cli.spec.fields import Name, Text

FORMAT = 2
MAX_BYTES = 256 * 2**20  # the metrics of half a million steps
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "safetensors")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VerdictRecord(_Part):
    """What became of the control, by a few pictures of validation seeds (see `dualproc_cli.evaluation`).

    Attributes:
        name: the verdict.
        reason: the rule that applied, with its numbers.
        figures: the numbers that the rules go by; None for those that are not known.
    """

    name: str
    reason: str
    figures: dict[str, float | None]


class Outcome(_Part):
    """How the run that learned the adapter ended.

    Attributes:
        reason: why it ended.
        step: the number of steps that the adapter was trained for.
        seconds: wall time since the run's last start: loading, learning, drawing.
    """

    reason: Literal["steps", "stop_at", "interrupted", "not-finite", "out-of-memory"]
    step: int
    seconds: float


class Revisions(_Part):
    """The revisions of the run's models: hub commits, or digests of the miniature's weights.

    None stands for a model in a local folder.

    Attributes:
        generator: the generator's.
        vlm: the VLM's.
        evaluate_vlm: that of the second VLM, which was not trained against; None also if there is none.
    """

    generator: Text | None
    vlm: Text | None
    evaluate_vlm: Text | None


class Manifest(_Part):
    """The contents of ``bundle.json``.

    Attributes:
        format: version of this format.
        name: the control's name.
        spec: the resolved spec, with every default and preset written out.
        spec_digest: SHA-256 of its canonical form.
        overrides: the values that ``--set`` gave, by dotted key; ``spec.yaml`` does not contain them.
        origins: where each value of the resolved spec came from, by dotted key.
        revisions: the models' revisions.
        memory: names of the memory strategies used while learning, in the order in which they were added.
        words: the prompts that the adapter was taught to draw as others, and these others.
        started_from: SHA-256 of the adapter's file that the run went on from; None if it started anew.
        versions: the versions of dualproc, Python and the libraries.
        seed: the seed of everything that was drawn at random.
        outcome: how the run ended.
        verdict: what became of the control; None if it was not judged.
        metrics: the metrics of every step.
        validations: what was found on the way, if ``learn.keep_best`` asked for it.
        files: SHA-256 of every other file, by its path with forward slashes.
        digest: SHA-256 of everything above, and so of the whole bundle; see `whole_digest`.
    """

    format: int
    name: Name
    spec: dict[str, Any]
    spec_digest: str
    overrides: dict[str, Any]
    origins: dict[str, str]
    revisions: Revisions
    memory: list[str]
    words: dict[str, str]
    started_from: str | None
    versions: dict[str, str]
    seed: int
    outcome: Outcome
    verdict: VerdictRecord | None
    metrics: list[StepMetrics] = Field(min_length=1)
    validations: list[Validation]
    files: dict[str, str] = Field(min_length=1)
    digest: str

    @classmethod
    def sealed(cls, **values: Any) -> "Manifest":
        """Return a manifest of ``values``, the attributes without ``digest``."""
        manifest = cls(**values, digest="")
        return manifest.model_copy(update={"digest": whole_digest(manifest.model_dump(mode="json"))})

    def with_files(self, files: dict[str, str]) -> "Manifest":
        """Return the same manifest of other ``files``, digests by path, with another digest of its own."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "digest"}
        return self.sealed(**{**values, "files": files})

    def to_json(self) -> str:
        """Return the manifest as indented JSON.

        Raises:
            ValueError: a number is NaN or infinite, which JSON cannot hold.
        """
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read the manifest of a bundle.

        Raises:
            UserError: the file is missing, damaged or changed, or another version of dualproc wrote it.
        """
        path = folder / MANIFEST
        try:
            require_regular(path)
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
            data = from_json(path.read_bytes(), allow_inf_nan=False)
        except FileNotFoundError as error:
            raise UserError(f"{folder}: not a bundle (expected a folder with {MANIFEST})") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); copy the bundle again") from error
        found = data.get("format") if isinstance(data, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise UserError(
                f"{path}: format {found} is newer than this dualproc reads (expected {FORMAT}); "
                "pip install -U dualproc"
            )
        if found != FORMAT:
            raise UserError(f"{path}: format: {found!r:.40} (expected {FORMAT}); copy or learn it again")
        try:
            manifest = cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{path}: {where}: {first['msg']}; the file was changed or damaged") from error
        try:
            manifest.to_json()
            unchanged = whole_digest(data) == manifest.digest
        except ValueError:  # a number that JSON cannot hold
            unchanged = False
        if not unchanged:
            raise UserError(f"{path}: was changed since the bundle was written; copy or learn it again")
        return manifest


def whole_digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all values of a manifest but ``digest``, as 64 hexadecimal digits.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    rest = {key: value for key, value in data.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of dualproc, Python and the libraries that affect what is learned."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {"dualproc": __version__, "python": python_version(), **libraries}
