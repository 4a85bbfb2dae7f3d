"""The trust report: one HTML file that says what became of a control, and what was tried to find out.

Usage::

    found = Evaluated.of(bundle, comparison, verdict_of(comparison), album)
    write_report([found], Path("report.html"))

The file runs no script and loads nothing: its style, pictures and plots are in it.
"""

from dualproc_cli.report.evaluated import Evaluated
from dualproc_cli.report.page import report_page, write_report

__all__ = ["Evaluated", "report_page", "write_report"]
