"""The way to the terminal: all that the package prints goes through `echo` or `Console`.

Specs, bundles and file names come from strangers. What they hold is printed as text, see `printable`.
"""

from collections.abc import Iterable
from typing import Any

import rich.console
import rich.text
import typer
from rich.segment import Segment

from dualproc_cli.printable import printable


def echo(message: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a message, which may have several lines, on standard output or standard error."""
    typer.echo(printable(str(message), keep="\n"), err=err, nl=nl)


class Text(rich.text.Text):
    """rich's text, escaped before it is measured, so that it fits into its column."""

    def __init__(self, text: str = "", *args: Any, **options: Any) -> None:
        super().__init__(printable(text, keep="\n"), *args, **options)


class Console(rich.console.Console):
    """rich's console, which escapes every text that it prints; the codes of its own styles stay."""

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """Return a string, which may have markup, as a text."""
        return super().render_str(printable(text, keep="\n"), **options)

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        """Yield the segments of anything that rich can show."""
        for text, style, control in super().render(*args, **options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)
