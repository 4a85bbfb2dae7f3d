"""Where a run writes. An output that cannot be written or would replace other files is refused at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dualproc_cli.bundle import MANIFEST
from dualproc_cli.errors import UserError
from dualproc_cli.files import clear_leftovers, locked, require_writable
from dualproc_cli.learning.checkpoint import Checkpoint, run_digest
from dualproc_cli.spec import ControlSpec


@dataclass(frozen=True)
class Output:
    """The bundle that a run will write, and the checkpoint of the run beside it.

    Attributes:
        bundle: its folder.
    """

    bundle: Path

    @property
    def checkpoint(self) -> Path:
        """The path of the checkpoint, ``BUNDLE.checkpoint.safetensors``."""
        return self.bundle.with_name(f"{self.bundle.name}.checkpoint.safetensors")

    @contextmanager
    def owned(self) -> Iterator[list[str]]:
        """Own the output: nobody else writes it meanwhile, and what killed runs left of it is removed.

        Yields:
            a line about each thing that was removed.

        Raises:
            UserError: its folder cannot be written to, or another run owns it.
        """
        if not self.bundle.name:
            raise UserError(f"{self.bundle}: expected the name of a new folder for the bundle")
        with locked(self.bundle):
            require_writable(self.checkpoint)
            yield clear_leftovers(self.bundle) + clear_leftovers(self.checkpoint)

    def prepare(
        self, spec: ControlSpec, *, resume: bool, overwrite: bool, started_from: str | None = None
    ) -> Checkpoint | None:
        """Make sure that nothing foreign is replaced; with ``resume``, return the checkpoint to go on from.

        ``started_from`` is the digest of the adapter's file that the run started from.

        Raises:
            UserError: the output exists already, or there is no checkpoint of this spec to resume from.
        """
        if self.bundle.is_symlink() and not self.bundle.exists():
            raise UserError(f"{self.bundle}: a link to nothing; remove it, or choose another output with -o")
        if self.bundle.exists():
            self._check_replaceable(resume or overwrite)
        if resume:
            checkpoint = Checkpoint.read(self.checkpoint)
            if checkpoint.spec_digest != run_digest(spec, started_from):
                raise UserError(
                    f"{self.checkpoint}: was made with another spec; resume with that spec, its --set and "
                    "--from, or pass --overwrite instead of --resume to start anew"
                )
        elif self.checkpoint.exists() and not overwrite:
            raise UserError(
                f"{self.checkpoint}: left by an interrupted run "
                "(pass --resume to go on, or --overwrite to start anew)"
            )
        else:
            checkpoint = None
        return checkpoint

    def _check_replaceable(self, allowed: bool) -> None:
        if not allowed:
            raise UserError(
                f"{self.bundle}: already exists (pass --overwrite to replace it, or another output with -o)"
            )
        # A mistyped output must not replace a folder of other files.
        empty = self.bundle.is_dir() and not any(self.bundle.iterdir())
        if not empty and not (self.bundle / MANIFEST).is_file():
            raise UserError(f"{self.bundle}: exists and is not a bundle; choose another output with -o")
