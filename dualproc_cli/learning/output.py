"""Where a run writes. What cannot be written or would destroy something else is refused at the start."""

from dataclasses import dataclass
from pathlib import Path

from dualproc_cli.bundle import MANIFEST
from dualproc_cli.errors import UserError
from dualproc_cli.files import require_writable
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
        """``BUNDLE.checkpoint.safetensors``"""
        return self.bundle.with_name(f"{self.bundle.name}.checkpoint.safetensors")

    def prepare(self, spec: ControlSpec, *, resume: bool, overwrite: bool) -> Checkpoint | None:
        """Make sure that the run can write, and read the checkpoint that it resumes from, if ``resume``.

        Raises:
            UserError: something is in the way, the folder cannot be written to, or no checkpoint fits.
        """
        if not self.bundle.name:
            raise UserError(f"{self.bundle}: expected the name of a new folder for the bundle")
        if self.bundle.exists():
            self._check_replaceable(resume or overwrite)
        if resume:
            checkpoint = Checkpoint.read(self.checkpoint)
            if checkpoint.spec_digest != run_digest(spec):
                raise UserError(
                    f"{self.checkpoint}: was made with another spec; resume with that spec and its --set, "
                    "or pass --overwrite instead of --resume to start anew"
                )
        elif self.checkpoint.exists() and not overwrite:
            raise UserError(
                f"{self.checkpoint}: left by an interrupted run "
                "(pass --resume to go on, or --overwrite to start anew)"
            )
        else:
            checkpoint = None
        require_writable(self.bundle.parent)
        return checkpoint

    def _check_replaceable(self, allowed: bool) -> None:
        if not allowed:
            raise UserError(
                f"{self.bundle}: already exists (pass --overwrite to replace it, or another output with -o)"
            )
        # An output that was mistyped must not cost the user a folder of something else.
        empty = self.bundle.is_dir() and not any(self.bundle.iterdir())
        if not empty and not (self.bundle / MANIFEST).is_file():
            raise UserError(f"{self.bundle}: exists and is not a bundle; choose another output with -o")
