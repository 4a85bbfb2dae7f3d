"""The language of control specs: what loads, what it comes to, and the commands about it."""

import json
import re
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import yaml
from spec_files import SHORTEST, load_text
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.spec import ControlSpec, SpecError, canonical, json_schema, load_spec, rgb, spec_digest

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))


@pytest.fixture
def load(tmp_path):
    """load(text, *settings): the text as a spec file."""
    return partial(load_text, tmp_path)


# What loads


def test_the_shortest_spec_is_complete(load):
    spec = load(SHORTEST).spec
    assert len(SHORTEST.splitlines()) == 10
    assert spec.generator.model == spec.vlm.model == "miniature"
    assert (spec.generator.width, spec.generator.height, spec.generator.steps) == (64, 64, 1)
    assert spec.visual_prompts["target"].position == 0.65
    assert spec.questions[0].visual_prompt == "target"


def test_answers_are_taken_as_written(load):
    for written in ("Yes", "no", "On", "true", "12", "1.50", "12:30", "1e3", "'Yes'", '"Yes"'):
        question = load(SHORTEST.replace("Yes", written).replace("[No]", "[off, 7]")).spec.questions[0]
        assert question.answer == written.strip("'\"")
        assert question.alternatives == ("off", "7")
    assert load(SHORTEST, "questions.0.answer=On").spec.questions[0].answer == "On"


def test_anchors_aliases_and_merge_keys(load):
    spec = load(
        SHORTEST.replace("target: {", "target: &line {").replace(
            "questions:", "  higher: {<<: *line, position: 0.3}\n  same: *line\nquestions:"
        ),
        "visual_prompts.same.color=blue",
    ).spec
    assert spec.visual_prompts["higher"].position == 0.3
    assert [spec.visual_prompts[name].color for name in ("target", "same")] == ["red", "blue"]


def test_json_is_yaml(load):
    data = yaml.safe_load(SHORTEST.replace("Yes", "'Yes'").replace("No", "'No'")) | {
        "description": "a tree: \U0001f333"
    }
    assert load(json.dumps(data)).spec.description == "a tree: \U0001f333"


def test_numbers_as_people_write_them(load):
    assert load(SHORTEST, "learn.learning_rate=1e-4", "questions.0.weight=2").spec.learn.learning_rate == 1e-4


def test_origins(load):
    loaded = load(SHORTEST, "learn.steps=7", "prompts.train.0=a tree")
    expected = {
        "name": "spec",
        "visual_prompts.target.position": "spec",
        "visual_prompts.target.color": "default",
        "generator.width": "preset",
        "learn.seed": "default",
        "learn.steps": "--set",
        "prompts.train": "--set",
    }
    assert expected.items() <= loaded.origins.items()


VISUAL_PROMPTS = {
    "line": "{type: line, position: 0.5}",
    "box": "{type: box, left: 0, top: 0, right: 1, bottom: 1}",
    "points": "{type: points, points: [{label: A, x: 0, y: 0}, {label: B, x: 1, y: 1}]}",
    "palette": "{type: palette, colors: [red, green, blue]}",
}


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        (["line"], ("noise",)),
        (["box", "points"], ("noise",)),
        (["palette"], ("weights",)),
        (["palette", None], ("weights",)),
        (["palette", "line"], ("noise", "weights")),
        (["line", None], ("noise",)),
        ([None], ("noise", "conditioning")),
    ],
)
def test_what_is_moved_follows_from_the_questions(load, asked, where):
    questions = [
        f"  - {{name: q{index}, question: What, answer: Yes"
        + (f", visual_prompt: {prompt}}}" if prompt else "}")
        for index, prompt in enumerate(asked)
    ]
    prompts = [f"  {name}: {prompt}" for name, prompt in VISUAL_PROMPTS.items()]
    text = "\n".join(
        ["name: x", "prompts: {train: [a house]}", "visual_prompts:", *prompts, "questions:", *questions]
    )
    assert load(text, "learn.where=auto").spec.where == where
    assert load(text, "learn.where=[weights]").spec.where == ("weights",)


@pytest.fixture
def varied(load):
    """Return the prompts for variety of a palette's spec: of ``prompts``, asked ``question``."""

    def variety(question, prompts, *settings):
        text = SHORTEST.replace("{train: [a house in a field]}", prompts)
        text = text.replace("Is the horizon at the red line?", question)
        return load(text, "learn.where=[weights]", *settings).spec.variety

    return variety


def test_variety_has_what_is_not_held_out(varied):
    every = varied("Is it flat?", "{train: [a house in a field]}")
    assert len(every) == len(set(every)) == 28
    held_out = "{train: [a house in a field], held_out: [A tree  at night]}"
    assert set(every) - set(varied("Is it flat?", held_out)) == {"a tree at night"}
    own = "{train: [a house], held_out: [a ball], variety: [a tree, a ball]}"
    assert varied("Is it flat?", own) == ("a tree",)


def test_variety_has_what_the_questions_name_of_the_prompts(varied):
    lamps = varied("Is the lamp on?", "{train: [a lamp in winter, a lamp at night]}")
    assert len(lamps) == 4 + 6
    assert all("lamp" in prompt for prompt in lamps)
    assert len(varied("Is the lamp on?", "{train: [a lamp at night, a house at night]}")) == 28


def test_variety_is_of_weights_that_the_answers_move(varied):
    prompts = "{train: [a house in a field]}"
    assert varied("Is it flat?", prompts, "learn.where=[noise]") == ()
    assert len(varied("Is it flat?", prompts, "learn.where=[noise,weights]")) == 28
    assert varied("Is it flat?", prompts, "learn.variety=0") == ()
    assert varied("Is it flat?", prompts, "generator.model=black-forest-labs/FLUX.1-schnell") == ()


def test_whether_the_picture_is_clean_is_asked_where_it_has_a_weight(load):
    assert [question.name for question in load(SHORTEST, "learn.keep.clean=0").spec.asked] == ["at-the-line"]
    asked = load(SHORTEST, "learn.keep.clean=0.25").spec.asked
    assert [(question.name, question.weight) for question in asked] == [("at-the-line", 1.0), ("clean", 0.25)]
    own = load(SHORTEST, "questions.0.name=clean", "learn.keep.clean=0.25").spec.asked
    assert [question.weight for question in own] == [1.0]


def test_colors():
    assert rgb("#ff8000") == pytest.approx((1, 128 / 255, 0))
    assert rgb("navy") == pytest.approx((0, 0, 128 / 255))


# The canonical form


def test_digest_is_stable_under_form(load):
    plain = load(SHORTEST).spec
    reversed_keys = yaml.safe_dump(dict(reversed(yaml.safe_load(SHORTEST.replace("Yes", "'Yes'")).items())))
    same = [
        "# a comment\n" + SHORTEST,
        SHORTEST.replace("{type: line, position: 0.65}", "\n    position: 0.650\n    type: line"),
        SHORTEST + f"generator: {{width: 64, model: miniature}}\nlearn: {{steps: {plain.learn.steps}}}\n",
        SHORTEST + "learn: {keep: {smoothness: -0.0}}\n",
        reversed_keys.replace("false", "No"),
    ]
    assert {spec_digest(load(text).spec) for text in same} == {spec_digest(plain)}
    assert spec_digest(load(SHORTEST, "learn.steps=99").spec) != spec_digest(plain)


def test_canonical_form_is_a_spec(load):
    spec = load(SHORTEST, 'description="line\\u2028end \\x85 \\U0001F333 \\x07 \\t é"').spec
    again = load(canonical(spec))
    assert again.spec == spec
    assert set(again.origins.values()) == {"spec"}
    assert json.loads(canonical(spec)) == spec.model_dump(mode="json")


# The schema


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_ready_specs(path):
    loaded = load_spec(path)
    assert loaded.spec.name == path.stem
    assert f"dualproc learn specs/{path.name}" in loaded.text
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load(loaded.text))


def test_schema_file_is_current():
    assert json.loads((ROOT / "dualproc_cli/spec/control.schema.json").read_text()) == json_schema()


def test_schema_describes_every_key_and_forbids_others():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for name, part in {"root": schema, **schema["$defs"]}.items():
        assert part["additionalProperties"] is False, name
        for key, value in part["properties"].items():
            described = value | schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert described.get("description"), f"{name}.{key}"
            assert "default" in value or key in part["required"], f"{name}.{key}"


# fmt: off
MUTATIONS = (
    "version=2", "version=true", "name=Loud", "name=null", "generator=null", "generator.width=60",
    "generator.width=4", "generator.steps=0", "generator.dtype=half", "generator.revision=12",
    "vlm.trust_remote_code=1", "prompts.train=[]", "prompts.train=[1]", 'prompts.train=[""]',
    "visual_prompts.target.position=1.1", "visual_prompts.target.type=curve",
    "visual_prompts.target.extra=1", "questions=[]", "visual_prompts.target.color=12",
    "visual_prompts.target.thickness=0", "questions.0.answer=null", "questions.0.weight=-1",
    "questions.0.weight=true", "questions.0.alternatives=No", "questions.0.name=3", "learn.steps=1.5",
    "learn.learning_rate=0", "learn.stop_at=1", "learn.seed=-1", "learn.adapter.target_modules=some",
    "learn.adapter.target_modules=[]", "memory=[tile-vea]", "memory=all", "vlm.image_scale=0",
    "generator.compile=1", "learn.objective=best", "evaluate.measures=[beauty]",
    "evaluate.vlm.modle=x", 'evaluate.seeds="3"', "learn.jitter.shift=0.6", "unknown=1",
)
# fmt: on


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_what_the_schema_rejects_the_loader_rejects(load, mutation):
    data = yaml.safe_load(SHORTEST)
    *parents, last = [int(part) if part.isdigit() else part for part in mutation.partition("=")[0].split(".")]
    at = data
    for part in parents:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    at[last] = yaml.safe_load(mutation.partition("=")[2])
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    with pytest.raises(SpecError):
        load(SHORTEST, mutation)


def test_specs_are_immutable(load):
    with pytest.raises(ValueError, match="frozen"):
        load(SHORTEST).spec.learn.steps = 3
    with pytest.raises(ValueError, match="Extra inputs"):
        ControlSpec.model_validate({"nonsense": 1})


# The commands


def test_commands_import_no_torch():
    code = (
        "import sys; import dualproc_cli.__main__; "
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(*arguments): the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_init_writes_a_spec_that_checks(run, tmp_path):
    assert run("init", "horizon.yaml").exit_code == 0
    loaded = load_spec(tmp_path / "horizon.yaml")
    assert loaded.spec.name == "horizon"
    assert "dualproc learn horizon.yaml" in loaded.text
    schema = re.match("# yaml-language-server: .schema=(.+)", loaded.text)[1]
    jsonschema.Draft202012Validator(json.loads((tmp_path / schema).read_text())).validate(
        yaml.safe_load(loaded.text)
    )
    again = run("init", "horizon.yaml")
    assert again.exit_code == 2
    assert "horizon.yaml: already exists" in again.stderr
    assert run("init", "nowhere/horizon.yaml").exit_code == 2


def test_init_starts_from_a_ready_spec(run, tmp_path):
    listed = run("init", "--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [path.stem for path in SPECS]
    assert "horizon-position         Put the horizon where the red line is, at 65 % of the height." in listed
    assert run("init", "My Lamp_2.yaml", "--from", "commonsense-night-lamp").exit_code == 0
    made = load_spec(tmp_path / "My Lamp_2.yaml")
    ready = load_spec(ROOT / "specs" / "commonsense-night-lamp.yaml").spec
    assert made.spec == ready.model_copy(update={"name": "my-lamp-2"})
    assert "$schema=control.schema.json\n" in made.text
    assert "#   dualproc learn My Lamp_2.yaml\n" in made.text
    assert run("init", "--from", "line-weight").exit_code == 0
    assert load_spec(tmp_path / "line-weight.yaml").spec.name == "line-weight"
    assert "did you mean 'line-weight'?" in run("init", "--from", "line-wight").stderr


def test_the_wheel_has_the_ready_specs_and_a_page_without_broken_links(tmp_path):
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    pytest.importorskip("hatch_fancy_pypi_readme")
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        assert {f"dualproc_cli/specs/{path.name}" for path in SPECS} <= set(wheel.namelist())
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        page = wheel.read(metadata).decode()
    assert "teaches a text-to-image generator a new visual control" in page
    assert "*Picture: Before and after:" in page
    assert [link for link in re.findall(r"\]\(([^)]*)\)", page) if not link.startswith("https://")] == []


def test_schema_prints_or_writes(run, tmp_path):
    assert json.loads(run("schema").stdout) == json_schema()
    assert run("schema", "-o", "here.json").exit_code == 0
    assert json.loads((tmp_path / "here.json").read_text()) == json_schema()
    assert "cannot be written" in run("schema", "-o", "no/where.json").stderr


def test_check_tells_how_many_prompts_there_are_for_variety(run):
    said = run("check", str(ROOT / "specs" / "color-palette.yaml")).stdout
    assert "6 prompts and 2 held out (26 more for variety)" in " ".join(said.split())
    assert "variety" not in run("check", str(ROOT / "specs" / "horizon-position.yaml")).stdout


def test_check_shows_origins_and_all_faults_of_all_files(run, tmp_path):
    (tmp_path / "good.yaml").write_text(SHORTEST)
    (tmp_path / "bad.yaml").write_text("nam: x")
    table = run("check", "good.yaml", "--values", "--set", "learn.steps=7")
    assert table.exit_code == 0
    summary, *presets = table.stdout.splitlines()[:3]
    assert presets == [
        f"{part}: preset miniature (miniature: the embedded default)" for part in ("generator", "vlm")
    ]
    assert run("check", "good.yaml", "--set", "learn.steps=7").stdout.splitlines() == [summary, *presets]
    assert summary.startswith(
        "good.yaml: valid: horizon-low, 1 question(s) to miniature about miniature at 64"
    )
    assert re.search(r"learn.steps +7 +--set", table.stdout)
    assert re.search(r"generator.width +64 +preset", table.stdout)

    mixed = run("check", "bad.yaml", "good.yaml", "none.yaml", "--json")
    assert mixed.exit_code == 2
    report = json.loads(mixed.stdout)
    assert report["specs"][0]["digest"] == spec_digest(load_spec(tmp_path / "good.yaml").spec)
    assert {"source": "bad.yaml", "line": 1, "column": 1, "key": "nam"}.items() <= report["errors"][0].items()
    assert "bad.yaml:1:1: nam: unknown key; did you mean 'name'?" in mixed.stderr
    assert "none.yaml: cannot be read: No such file or directory" in mixed.stderr
