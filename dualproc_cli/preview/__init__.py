"""What a run would learn from, before it is paid for: what the VLM says about the base generator's pictures.

Usage::

    found = preview(loaded, device)      # findings, asked, sheet
"""

from dualproc_cli.preview.findings import Finding
from dualproc_cli.preview.preview import Preview, first_look, preview

__all__ = ["Finding", "Preview", "first_look", "preview"]
