"""Opening a bundle, and verifying it before anything in it is used."""

import os
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dualproc_cli import __version__
from dualproc_cli.bundle.archive import MAX_BYTES, bundle_root, is_inside, unpacked
from dualproc_cli.bundle.layout import ADAPTER, MANIFEST, README, SPEC
from dualproc_cli.bundle.manifest import Manifest
from dualproc_cli.errors import UserError
from dualproc_cli.files import digest
from dualproc_cli.spec import ControlSpec, ImagePrompt, LoadedSpec, spec_digest
from dualproc_cli.spec.faults import dotted
from dualproc_cli.spec.relations import relations
from dualproc_cli.spec.weights_files import adapter_file

TRUST = "trust_remote_code"  # the key of every model in a spec that lets the model's own code run
REQUIRED = (ADAPTER, SPEC, README)
# Left in a folder by git, the Hugging Face hub and file managers; not part of the bundle.
IGNORED = {".git", ".gitattributes", ".gitignore", ".cache", ".huggingface", ".DS_Store"}


@dataclass(frozen=True, eq=False)
class Bundle:
    """A learned control: an adapter, the spec that it was learned from, and the record of its run.

    Usage::

        bundle = Bundle.open(Path("horizon-position.dualproc"))      # or a .zip of it
        generator.load_adapters([(bundle.folder, 1.0)])

    Attributes:
        source: the folder or zip file that the user named.
        folder: the folder with the bundle's files.
        manifest: the contents of ``bundle.json``.
    """

    source: Path
    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """Open and verify the bundle at ``path``, a folder or a ``.zip``.

        A zip is unpacked into a temporary folder, which is removed when the bundle is no longer used.

        Raises:
            UserError: there is no bundle, or it was changed or damaged (see `verify`).
        """
        if path.is_dir():
            bundle = cls(path, path, Manifest.read(path))
        elif path.is_file():
            with ExitStack() as stack:
                folder = bundle_root(stack.enter_context(unpacked(path)))
                bundle = cls(path, folder, Manifest.read(folder))
                weakref.finalize(bundle, stack.pop_all().close)
        else:
            raise UserError(
                f"{path}: no such bundle (expected a folder that `dualproc learn` wrote, or a .zip of it)"
            )
        bundle.verify()
        return bundle

    def verify(self) -> None:
        """Check that every file is there and unchanged, and that there are no others.

        Raises:
            UserError: a file is missing, was changed or does not belong to the bundle; the message names it.
        """
        listed = self.manifest.files
        if foreign := [path for path in listed if not is_inside(path) or path == MANIFEST]:
            raise UserError(
                f"{self.source}: {MANIFEST} lists {foreign[0]!r}, which a bundle cannot hold; do not use it"
            )
        present = _present(self.folder)
        missing = sorted({*listed, *REQUIRED} - present)
        if missing:
            raise UserError(f"{self.source}: {missing[0]} is missing; copy or learn the bundle again")
        if extra := sorted(present - listed.keys() - {MANIFEST}):
            raise UserError(
                f"{self.source}: {extra[0]} does not belong to the bundle; remove it, or get the bundle again"
            )
        home = _home(self.folder)
        for path in sorted(present):
            if not (self.folder / path).resolve().is_relative_to(home):
                raise UserError(f"{self.source}: {path} leads out of the bundle; do not use it")
        for path, expected in sorted(listed.items()):
            if self._digest(path) != expected:
                raise UserError(
                    f"{self.source}: {path} was changed since the bundle was written; copy or learn it again"
                )
        self._check_spec()

    @property
    def spec(self) -> ControlSpec:
        """The resolved spec; see `loaded`."""
        return self.loaded.spec

    @cached_property
    def loaded(self) -> LoadedSpec:
        """The resolved spec of the run; presets that have changed since do not affect it.

        Hub models are pinned to the commits of the run. ``trust_remote_code`` is false and no ``device`` is
        named even if the spec does: the person who opens a bundle decides that, not the one who made it.
        """
        data = _untrusted(ControlSpec.model_validate(self.manifest.spec).model_dump(mode="json"))
        revisions = self.manifest.revisions
        models = (
            (data["generator"], revisions.generator),
            (data["vlm"], revisions.vlm),
            (data["evaluate"]["vlm"], revisions.evaluate_vlm),
        )
        for model, revision in models:
            if model:
                model["device"] = None
            if model and revision:
                model["revision"] = revision
        text = (self.folder / SPEC).read_text("utf-8", errors="replace")
        spec = ControlSpec.model_validate(data)
        return LoadedSpec(spec, self.folder, text, dict(self.manifest.origins), str(self.source))

    @property
    def stands_on(self) -> list[tuple[str, float]]:
        """The adapters on top of which it was learned: the digest of each one's file, and its scale."""
        adapters = self.spec.generator.adapters
        return [(self.manifest.files[adapter_file(one.path)], one.scale) for one in adapters]

    def _digest(self, path: str) -> str:
        try:
            if (self.folder / path).stat().st_size > MAX_BYTES:
                raise UserError(
                    f"{self.source}: {path} is too large (expected at most {MAX_BYTES // 2**30} GiB)"
                )
            return digest(self.folder / path)
        except OSError as error:
            raise UserError(f"{self.source}: {path}: {error.strerror}; do not use the bundle") from error

    def _check_spec(self) -> None:
        where = f"{self.source}: {MANIFEST}: spec"
        try:
            spec = ControlSpec.model_validate(self.manifest.spec)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            key = ".".join(map(str, fault["loc"]))
            writer = self.manifest.versions.get("dualproc", __version__)
            other = (
                "" if writer == __version__ else f", or dualproc {writer} reads it and {__version__} does not"
            )
            problem = f"{key}: {fault['msg']}; the file was changed or damaged{other}"
            raise UserError(f"{where}: {problem}") from error
        if spec_digest(self.manifest.spec) != self.manifest.spec_digest:
            raise UserError(
                f"{where}: does not have the digest {self.manifest.spec_digest[:12]}; the file was changed"
            )
        if spec.name != self.manifest.name:
            raise UserError(f"{where}: name: is {spec.name}, not {self.manifest.name}; the file was changed")
        asked = {name for entry in self.manifest.metrics for name in entry.probabilities}
        if unasked := [question.name for question in spec.questions if question.name not in asked]:
            raise UserError(
                f"{self.source}: {MANIFEST}: metrics: nothing about the question {unasked[0]}; learn it again"
            )
        for name, prompt in spec.visual_prompts.items():
            if isinstance(prompt, ImagePrompt) and _normal(prompt.path) not in self.manifest.files:
                raise UserError(
                    f"{where}: visual_prompts.{name}: {prompt.path} is not in the bundle; learn it again"
                )
        for index, adapter in enumerate(spec.generator.adapters):
            if adapter_file(adapter.path) not in self.manifest.files:
                at = f"generator.adapters.{index}"
                raise UserError(f"{where}: {at}: {adapter.path} is not in the bundle; learn it again")
        for path, problem, expected in relations(spec.model_dump(mode="json"), self.folder):
            raise UserError(f"{where}: {dotted(path)}: {problem} (expected {expected}); learn it again")


def _untrusted(data: Any) -> Any:
    """Return a copy of a spec's plain values in which every ``trust_remote_code`` is false."""
    if isinstance(data, dict):
        return {key: False if key == TRUST else _untrusted(value) for key, value in data.items()}
    return [_untrusted(item) for item in data] if isinstance(data, list) else data


def _normal(path: str) -> str:
    return Path(os.path.normpath(path)).as_posix()


def _home(folder: Path) -> Path:
    """Return the folder that no file of a bundle may lead out of.

    In the hub's cache, every file of a snapshot is a link to a file beside the snapshots.
    """
    whole = folder.resolve()
    return whole.parent.parent if whole.parent.name == "snapshots" else whole


def _present(folder: Path) -> set[str]:
    """Return the paths of all files below ``folder``, with forward slashes."""
    found = set()
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name not in IGNORED]
            files = [name for name in files if name not in IGNORED]
        # A link to a folder is not followed; it counts as a file, and no manifest lists it.
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found |= {Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)}
    return found
