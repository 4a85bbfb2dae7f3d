"""Every command of the README, run as it stands, on the miniature."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What CI runs itself, before this test and as this test.
RUN_BY_CI = ('pip install -e ".[dev]" && ', "pytest")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the specs, and `dualproc` on the path."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    command = tmp_path / "bin" / "dualproc"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dualproc_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(arguments: list[str], workplace: Path) -> None:
    path = f"{workplace / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=workplace, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"


@pytest.mark.slow
def test_commands_and_code_of_the_readme(workplace: Path) -> None:
    commands = [line for block in blocks("bash") for line in block.strip().splitlines()]
    for command in commands:
        for part in RUN_BY_CI:
            command = command.removeprefix(part)
        if command:
            run(["sh", "-c", command], workplace)
    assert (workplace / "horizon-position.dualproc" / "samples" / "before-after.png").is_file()
    assert len(list((workplace / "pictures").glob("*.png"))) == 5
    for code in blocks("python"):
        run([sys.executable, "-c", code], workplace)


def test_the_spec_of_the_readme(tmp_path: Path) -> None:
    from dualproc_cli.spec import load_spec

    path = tmp_path / "spec.yaml"
    path.write_text(blocks("yaml")[0])
    assert load_spec(path).spec.questions[0].answer == "Yes"
