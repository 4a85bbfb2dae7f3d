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
    """Write the text as ``spec.yaml`` to the folder, and load it."""
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_spec(path, settings)


def fault_lines(folder: Path, text: str | bytes, *settings: str) -> list[str]:
    """Return the lines of the text's SpecError, with paths relative to the folder."""
    with pytest.raises(SpecError) as caught:
        load_text(folder, text, *settings)
    return str(caught.value).replace(f"{folder}/", "").splitlines()
