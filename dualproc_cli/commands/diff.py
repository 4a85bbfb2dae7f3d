"""``dualproc diff``: how two specs differ."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dualproc_cli.commands.options import AsJson
from dualproc_cli.printable import printable
from dualproc_cli.spec import ControlSpec, load_spec
from dualproc_cli.spec.difference import differences
from dualproc_cli.terminal import echo


def diff(
    before: Annotated[Path, typer.Argument(metavar="OLD", help="A control spec (YAML).")],
    after: Annotated[Path, typer.Argument(metavar="NEW", help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two specs value by value, presets and defaults included.

    It also shows what changed in git: git difftool --no-prompt --extcmd "dualproc diff" -- control.yaml

    Example: dualproc diff old.yaml new.yaml
    """
    print_differences(load_spec(before).spec, load_spec(after).spec, as_json)


def print_differences(before: ControlSpec, after: ControlSpec, as_json: bool) -> None:
    """Print how two specs differ, a line for each value, or as one JSON object."""
    found = differences(before, after)
    if as_json:
        echo(json.dumps({"differences": [asdict(one) for one in found]}, ensure_ascii=False))
    else:
        echo("\n".join(printable(str(one)) for one in found) or "the specs are equal")
