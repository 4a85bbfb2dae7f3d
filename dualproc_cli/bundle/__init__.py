"""The adapter bundle: a learned control as a folder or a zip that can be verified, shared and loaded.

Usage::

    bundle = Bundle.open(Path("horizon-position.dualproc"))   # verified
    bundle.spec.prompts.held_out
    generator.load_adapters([(bundle.folder, 1.0)])

This package imports no torch.
"""

from dualproc_cli.bundle.bundle import Bundle
from dualproc_cli.bundle.layout import MANIFEST
from dualproc_cli.bundle.manifest import Manifest, Outcome, Revisions, VerdictRecord
from dualproc_cli.bundle.write import add_report, write_bundle

__all__ = [
    "MANIFEST",
    "Bundle",
    "Manifest",
    "Outcome",
    "Revisions",
    "VerdictRecord",
    "add_report",
    "write_bundle",
]
