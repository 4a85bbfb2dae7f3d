"""How two specs differ: `dualproc diff` and `spec.difference`."""

import json
from pathlib import Path

from spec_files import SHORTEST, load_text
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.spec.difference import differences

MORE = """\
  - {name: night, question: "Is it night?", answer: "Yes"}
learn: {steps: 7}
"""


def test_values_that_differ_by_the_names_of_questions(tmp_path):
    before = load_text(tmp_path, SHORTEST).spec
    after = load_text(
        tmp_path, SHORTEST.replace("0.65", "0.3").replace("a house", "a tree").replace("[No]", "[]") + MORE
    ).spec
    assert [str(one) for one in differences(before, after)] == [
        'prompts.train: ["a house in a field"] -> ["a tree in a field"]',
        "visual_prompts.target.position: 0.65 -> 0.3",
        'questions.at-the-line.alternatives: ["No"] -> []',
        'questions.night: added: {name: "night", question: "Is it night?", answer: "Yes", alternatives: [], '
        "visual_prompt: null, region: null, weight: 1.0, paraphrases: [], held_out_paraphrases: [], "
        "opposites: []}",
        "learn.steps: 300 -> 7",
    ]
    assert differences(after, before)[3].removed
    assert differences(before, before) == []


def test_the_command(tmp_path: Path):
    (old, new) = (tmp_path / name for name in ("old.yaml", "new.yaml"))
    old.write_text(SHORTEST)
    new.write_text(SHORTEST + "learn: {steps: 7}\n")
    result = CliRunner().invoke(app, ["diff", str(old), str(new)])
    assert (result.exit_code, result.stdout) == (0, "learn.steps: 300 -> 7\n")
    assert CliRunner().invoke(app, ["diff", str(old), str(old)]).stdout == "the specs are equal\n"
    found = json.loads(CliRunner().invoke(app, ["diff", str(old), str(new), "--json"]).stdout)
    assert found["differences"][0] == {
        "key": "learn.steps", "before": 300, "after": 7, "added": False, "removed": False
    }  # fmt: skip
    assert CliRunner().invoke(app, ["diff", str(old), str(tmp_path / "none")]).exit_code == 2
