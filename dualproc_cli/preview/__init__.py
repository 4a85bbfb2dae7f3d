"""What a run would learn from, before it is paid for: what the VLM says about the base generator's pictures.

Usage::

    found = preview(loaded, device)      # findings, asked, sheet
"""

from dualproc_cli.preview.findings import Finding
from dualproc_cli.preview.first import FirstLook, first_look
from dualproc_cli.preview.full import Preview, preview

__all__ = ["Finding", "FirstLook", "Preview", "first_look", "preview"]
