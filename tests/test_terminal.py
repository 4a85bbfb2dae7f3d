"""What strangers wrote is printed as text: no control character of theirs reaches the terminal."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.printable import printable
from dualproc_cli.terminal import Console, Text

PACKAGE = Path(__file__).parent.parent / "dualproc_cli"
HOSTILE = "a\x1b]0;owned\x07\x9b31m\x85\u202eb\u2028\x7f\udc80"
ESCAPED = r"a\u001b]0;owned\u0007\u009b31m\u0085\u202eb\u2028\u007f\udc80"


def test_what_is_not_printable_is_escaped_as_in_json():
    assert printable(HOSTILE) == ESCAPED
    assert json.loads(f'"{printable(HOSTILE)}"') == HOSTILE
    assert printable("Ä 木 é 🙂\n") == r"Ä 木 é 🙂\n"
    assert printable("a\nb", keep="\n") == "a\nb"


def test_a_console_escapes_texts_and_keeps_its_own_codes():
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", width=200, highlight=False
    )
    table = Table(HOSTILE)
    table.add_row(f"[bold]{HOSTILE}[/bold]")
    table.add_row(Text(HOSTILE))
    console.print(table, HOSTILE)
    shown = console.file.getvalue()
    assert shown.count(ESCAPED) == 4
    assert "\x1b[1m" in shown
    assert not {"\x07", "\x9b", "\x85", "\u202e", "\u2028", "\x7f"} & set(shown)


@pytest.mark.parametrize(
    "arguments",
    [
        ["bundle", "show", HOSTILE],
        ["check", HOSTILE],
        ["--debug", "check", HOSTILE],
        ["diff", "control.yaml", HOSTILE],
        ["init", "--from", HOSTILE],
        ["learn", "control.yaml", "--set", f"name={HOSTILE}"],
        ["score", "p.png", "--spec", HOSTILE],
        ["sample", "--control", HOSTILE],
        ["check", f"--{HOSTILE}"],
        [HOSTILE],
        ["init", f"none/{HOSTILE}"],
    ],
)
def test_no_command_prints_control_characters(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["init"])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert [c for c in result.output if not c.isprintable() and c != "\n"] == []


def test_a_file_name_cannot_add_a_line(tmp_path):
    result = CliRunner().invoke(app, ["bundle", "show", str(tmp_path / "a\nWrote b")])
    assert len(result.stderr.splitlines()) == 1


def test_arguments_that_are_not_utf8_are_told():
    command = [sys.executable, "-m", "dualproc_cli", "check", b"\xff\x9b.yaml"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(rb"\udcff\udc9b.yaml: cannot be read")


def test_everything_is_printed_in_one_place():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "terminal.py" or "training" in path.parts:
            continue
        tree = ast.parse(path.read_text("utf-8"))
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"print", "typer.echo", "typer.secho", "rich.print", "sys.stdout.write"}, path
        source = ast.unparse(tree)
        assert "from rich.console import Console" not in source, path
        assert "from rich.text import Text" not in source, path
