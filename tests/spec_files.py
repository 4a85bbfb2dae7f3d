"""Specs as text, loaded from a file."""

from pathlib import Path

import pytest

from dualproc_cli.spec import LoadedSpec, SpecError, load_spec

SHORTEST = """\
name: horizon-low
prompts: {train: [a house in a field]}
visual_prompts:
  target: {type: line, position: 0.65}
questions:
  - name: at-the-line
    question: Is the horizon at the red line?
    answer: Yes
    alternatives: [No]
    visual_prompt: target
"""


def load_text(folder: Path, text: str | bytes, *settings: str) -> LoadedSpec:
    """The text as ``spec.yaml`` in the folder, loaded."""
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_spec(path, settings)


def fault_lines(folder: Path, text: str | bytes, *settings: str) -> list[str]:
    """The lines of the error that the text is answered with, paths relative to the folder."""
    with pytest.raises(SpecError) as caught:
        load_text(folder, text, *settings)
    return str(caught.value).replace(f"{folder}/", "").splitlines()
