"""Tables: laid out for a terminal's width, and one row a line everywhere else."""

import rich.text
from rich.table import Table

from dualproc_cli.printable import printable
from dualproc_cli.terminal import Console, echo


def print_table(table: Table) -> None:
    """Print a table. In a pipe or a file it has no title, no styles, and no cell is wrapped or cut."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    columns = [
        [_plain(cell) for cell in ([column.header] if table.show_header else []) + list(column.cells)]
        for column in table.columns
    ]
    widths = [max(map(len, cells), default=0) for cells in columns]
    for row in zip(*columns, strict=True):
        cells = [
            cell.rjust(width) if column.justify == "right" else cell.ljust(width)
            for column, cell, width in zip(table.columns, row, widths, strict=True)
        ]
        echo("  ".join(cells).rstrip())


def _plain(cell: object) -> str:
    """Return a cell on one line. Other strings than ``Text`` are rich's markup."""
    text = cell if isinstance(cell, rich.text.Text) else rich.text.Text.from_markup(str(cell))
    return printable(" ".join(text.plain.splitlines()))
