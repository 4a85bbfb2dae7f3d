"""The command line: learning, drawing and scoring on small models, and what bad input gets."""

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline
from PIL import Image
from small_generator import TOKENS
from typer.testing import CliRunner

from dualproc_cli import __version__
from dualproc_cli.__main__ import app
from dualproc_cli.errors import UserError
from dualproc_cli.file_names import slugs
from dualproc_cli.generator import Generator, load_generator
from dualproc_cli.picture_files import load_picture
from dualproc_cli.pictures import Section, Strip, labelled_grid, save_png
from dualproc_cli.spec import GeneratorSpec

COMMANDS = [
    "init",
    "check",
    "preview",
    "learn",
    "sample",
    "score",
    "evaluate",
    "report",
    "schema",
    "models",
    "bench",
    "bundle show",
    "bundle verify",
    "bundle diff",
    "diff",
]


def dualproc(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeeds(*arguments):
    result = dualproc(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments, status=2):
    """Return the one line that the command fails with."""
    result = dualproc(*arguments)
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    (line,) = result.stderr.splitlines()
    return line


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture(scope="module")
def home(tmp_path_factory, small_spec):
    """A folder with a spec and its bundle, learned so strongly that pictures differ."""
    folder = tmp_path_factory.mktemp("home")
    spec = small_spec(folder, {"learn": {"steps": 10, "batch_size": 2, "learning_rate": 0.1}})
    succeeds("learn", spec, "-o", folder / "small", "--device", "cpu")
    return folder


# Help and versions


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    assert "Example: dualproc" in succeeds(*command.split(), "--help").output


def test_version():
    assert succeeds("--version").output == f"dualproc {__version__}\n"


def test_module_is_the_command():
    shown = subprocess.run(
        [sys.executable, "-m", "dualproc_cli", "bundle", "show", "/none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 2
    assert shown.stderr.startswith("/none: no such bundle")


# Learning


def test_default_output_is_named_after_the_spec(small_spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = succeeds("learn", small_spec(tmp_path), "--set", "learn.steps=1", "--device", "cpu")
    assert "Wrote small.dualproc" in result.output
    shown = json.loads(succeeds("bundle", "show", "small.dualproc", "--json").output)
    assert shown["overrides"] == {"learn.steps": 1}


def test_learn_refuses_what_it_cannot_use(home, tmp_path):
    spec = home / "spec.yaml"
    assert "already exists" in refused("learn", spec, "-o", home / "small")
    assert "no such device" in refused("learn", spec, "-o", tmp_path / "out", "--device", "abacus")
    assert "learn.step: " in refused("learn", spec, "-o", tmp_path / "out", "--set", "learn.step=3")
    assert "no-such-model" in refused(
        "learn", spec, "-o", tmp_path / "out", "--set", "vlm.model=./no-such-model"
    )
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_saves_and_says_how_to_go_on(small_spec, tmp_path):
    spec = small_spec(tmp_path, {"learn": {"steps": 10_000, "batch_size": 1}})
    command = [
        sys.executable,
        "-m",
        "dualproc_cli",
        "learn",
        str(spec),
        "-o",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.startswith("weights 1/"):
                process.send_signal(signal.SIGINT)
                break
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    *_, line = errors.splitlines()
    assert "interrupted after step" in line
    assert "--resume" in line
    assert "Traceback" not in errors
    assert (tmp_path / "out.checkpoint.safetensors").exists()


# Drawing


def test_sample_draws_the_pictures_of_plain_diffusers(home, generator_folder, tmp_path):
    succeeds("sample", "a house", "--control", home / "small", "--seed", 7, "-o", tmp_path / "one")
    succeeds("sample", "a house", "--control", f"{home / 'small'}@0.5", "--seed", 7, "-o", tmp_path / "half")
    pipeline = DiffusionPipeline.from_pretrained(generator_folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(home / "small", adapter_name="small")
    for folder, scale in (("one", 1.0), ("half", 0.5)):
        pipeline.set_adapters("small", scale)
        image = pipeline(
            "a house",
            width=64,
            height=64,
            num_inference_steps=1,
            guidance_scale=0.0,
            max_sequence_length=TOKENS,
            generator=torch.Generator().manual_seed(7),
        ).images[0]
        assert np.abs(np.asarray(image).astype(int) - pixels(tmp_path / folder / "a-house-7.png")).max() <= 1
    assert (
        np.abs(pixels(tmp_path / "one" / "a-house-7.png") - pixels(tmp_path / "half" / "a-house-7.png")).max()
        > 5
    )


def test_scale_zero_is_the_base_exactly(home, generator_folder, tmp_path):
    succeeds("sample", "a house", "--control", f"{home / 'small'}@0", "-o", tmp_path / "zero")
    spec = GeneratorSpec(model=str(generator_folder), width=64, height=64, steps=1)
    base = load_generator(spec, torch.device("cpu")).render(["a house"], [0])[0]
    save_png(base, tmp_path / "base.png")
    assert (pixels(tmp_path / "base.png") == pixels(tmp_path / "zero" / "a-house-0.png")).all()


def test_controls_add_up(home, tmp_path):
    archive = tmp_path / "small.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in (home / "small").rglob("*"):
            file.write(path, path.relative_to(home))
    half = f"{archive}@0.5"
    succeeds("sample", "a house", "--control", half, "--control", half, "-o", tmp_path / "sum")
    succeeds("sample", "a house", "--control", home / "small", "-o", tmp_path / "one")
    difference = pixels(tmp_path / "sum" / "a-house-0.png") - pixels(tmp_path / "one" / "a-house-0.png")
    assert np.abs(difference).max() <= 1


def test_sample_defaults_and_grid(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = succeeds("sample", "--control", f"{home / 'small'}@2", "-n", 2, "--seed", 5, "--grid")
    written = [
        "a-house-in-the-field-5.png",
        "a-house-in-the-field-6.png",
        "a-tree-5.png",
        "a-tree-6.png",
        "grid.png",
    ]
    assert result.stdout.splitlines() == [f"pictures/small@2/{name}" for name in written]
    assert sorted(os.listdir("pictures/small@2")) == written
    for name in written[:-1]:
        picture = Image.open(f"pictures/small@2/{name}")
        assert picture.size == (64, 64)
        (control,) = json.loads(picture.text["dualproc"])["controls"]
        assert (control["name"], control["scale"]) == ("small", 2)
        adapter = home / "small" / "pytorch_lora_weights.safetensors"
        assert control["adapter"] == hashlib.sha256(adapter.read_bytes()).hexdigest()


def test_steps_are_the_callers(home, tmp_path):
    for steps in (1, 3):
        arguments = ("a house", "--control", home / "small", "--steps", steps, "-o", tmp_path / str(steps))
        succeeds("sample", *arguments)
    assert (pixels(tmp_path / "1" / "a-house-0.png") != pixels(tmp_path / "3" / "a-house-0.png")).any()


def test_sample_refuses_what_it_cannot_use(home, tmp_path):
    small = home / "small"
    assert "expected BUNDLE@SCALE" in refused("sample", "--control", f"{small}@strong")
    assert "expected BUNDLE@SCALE" in refused("sample", "--control", f"{small}@inf")
    assert "no such bundle" in refused("sample", "--control", tmp_path / "none")
    assert "made for another generator" in refused("sample", "--control", small, "--model", "miniature")
    assert "no prompt" in refused("sample")
    assert "not UTF-8" in refused("sample", "a house \udcff", "--control", small)
    assert r"--model a\udcff: expected" in refused("sample", "a house", "--model", "a\udcff")
    assert "empty prompt" in refused("sample", " ", "--control", small)
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in refused("sample", "--control", small, "-o", tmp_path / "file" / "out")
    (tmp_path / "empty").mkdir()
    for model in ("empty", "." * 300):
        line = refused("sample", "a house", "--model", tmp_path / model, "-o", tmp_path / "out")
        assert str(tmp_path / model) in line
    for model in ("./no-such-model", "~nobody-x/y", "two..dots"):
        assert "no such folder" in refused("sample", "a house", "--model", model, "-o", tmp_path / "out")


def test_words_that_the_miniature_does_not_know_are_named(tmp_path):
    result = dualproc("sample", "a house", "a zebra in a field", "-o", tmp_path, "--device", "cpu")
    assert result.exit_code == 0
    assert result.stderr == "warning: 'a zebra in a field': the miniature does not know: zebra\n"


def test_bundles_of_different_generators_are_not_mixed(home, small_spec, tmp_path):
    from small_generator import make_generator

    other = make_generator(tmp_path / "generator", width=32)
    generator = {"model": str(other), "width": 64, "height": 64, "steps": 1}
    spec = small_spec(tmp_path, {"generator": generator, "learn": {"steps": 1}})
    succeeds("learn", spec, "-o", tmp_path / "other", "--device", "cpu")
    line = refused(
        "sample", "--control", home / "small", "--control", tmp_path / "other", "-o", tmp_path / "out"
    )
    assert "made for another generator" in line
    assert not (tmp_path / "out").exists()


# Scoring


def test_score_of_pictures_of_any_size(home, tmp_path):
    spec = home / "spec.yaml"
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "small.png")
    Image.new("RGBA", (96, 64), (0, 0, 255, 255)).save(tmp_path / "[wide].webp")
    images = [tmp_path / "small.png", tmp_path / "[wide].webp"]
    scored = json.loads(succeeds("score", *images, "--spec", spec, "--json").stdout)
    assert [row["image"] for row in scored["images"]] == [str(path) for path in images]
    for row in scored["images"]:
        assert row["questions"].keys() == {"at-the-line", "night"}
        assert all(0 <= value <= 1 for value in row["questions"].values())
    table = succeeds("score", images[0], "--spec", spec).stdout
    assert f"{scored['images'][0]['questions']['at-the-line']:.3f}" in table


def test_score_sees_the_visual_prompt(home, tmp_path):
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "p.png")
    found = [
        json.loads(
            succeeds(
                "score",
                tmp_path / "p.png",
                "--spec",
                home / "spec.yaml",
                "--json",
                "--set",
                f"visual_prompts.target.position={position}",
            ).stdout
        )["images"][0]["questions"]
        for position in (0.2, 0.8)
    ]
    assert found[0]["at-the-line"] != found[1]["at-the-line"]
    assert found[0]["night"] == found[1]["night"]


def test_score_measures_what_a_file_tells(home, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "p.png")
    spec = home / "spec.yaml"
    settings = [
        "--set", "visual_prompts.colors={type: palette, colors: [red]}",
        "--set", "evaluate.measures=[{type: palette, name: reds, target: colors}, "
        "{type: distance, name: near, at_most: 0.1}, {type: diversity, name: varied}, "
        "{type: statistic, name: clipped, of: clipping}]",
    ]  # fmt: skip
    scored = json.loads(succeeds("score", tmp_path / "p.png", "--spec", spec, "--json", *settings).stdout)
    assert scored["images"][0]["measures"] == {
        "reds": {"value": pytest.approx(0, abs=1e-3), "success": True, "unit": "CIEDE2000"},
        "near": {"value": None, "success": None, "unit": "mean |x - base|"},
        "clipped": {"value": 1.0, "success": None, "unit": "share"},
    }
    table = succeeds("score", tmp_path / "p.png", "--spec", spec, *settings).stdout
    assert "0.000 yes" in table
    assert "unjudged" in table


def test_measures_that_cannot_judge_are_refused_by_every_command(home, tmp_path):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "p.png")
    spec, setting = home / "spec.yaml", ("--set", "evaluate.measures=[horizon]")
    for command in (
        ("check", spec),
        ("learn", spec, "-o", tmp_path / "out"),
        ("score", tmp_path / "p.png", "--spec", spec),
    ):
        line = refused(*command, *setting)
        assert line.startswith(
            f"{setting[0]} {setting[1]}: evaluate.measures.0: horizon reads the miniature's"
        )
    assert not (tmp_path / "out").exists()


def test_evaluate_prints_tables_and_json(home):
    found = json.loads(succeeds("evaluate", home / "small", "--seeds", 2, "--json").stdout)
    assert found["seeds"] == 2
    assert found["measures"]["distance"]["value"]["base"] == 0
    assert found["artefacts"]["saturation"]["ratio"] > 0
    assert found["spread"]["diversity"]["base"] > 0
    assert found["clean_by"] == ["high-frequency", "clipping", "grid"]
    assert found["right"] is None
    assert found["verdict"]["name"] != "learned"
    printed = succeeds("evaluate", home / "small", "--seeds", 2).stdout
    for word in (
        "clean",
        "right is unknown",
        found["verdict"]["reason"],
        "P(answer)",
        "at-the-line",
        "distance",
        "artefacts",
        "grid",
        "spread",
        "diversity",
    ):
        assert word in printed


def test_a_report_is_written_into_a_bundle_or_beside_it(home, tmp_path):
    bundle = tmp_path / "small"
    shutil.copytree(home / "small", bundle)
    before = json.loads((bundle / "bundle.json").read_text())["digest"]
    printed = succeeds("report", bundle, "--seeds", 2).stdout
    after = json.loads(succeeds("bundle", "verify", bundle, "--json").stdout)["digest"]
    assert before != after
    assert printed.splitlines()[0] == f"Wrote {bundle / 'report.html'}; the bundle's sha256 is now {after}"
    assert printed.splitlines()[1].startswith("verdict: ")
    page = (bundle / "report.html").read_text()
    assert "strength of the adapter" in page
    assert page.count("data:image/webp") == 3 * 2 * 2 + 1  # prompts, base and learned, seeds; and the overlay
    archive = shutil.make_archive(tmp_path / "zipped", "zip", bundle)
    assert "cannot be added to a zip" in refused("report", archive)
    assert "no such bundle" in refused("report", tmp_path / "none")


def test_several_bundles_are_evaluated_side_by_side(home, tmp_path, monkeypatch):
    drawn = []
    render = Generator.render

    def counted(self, prompts, seeds, **options):
        drawn.append(prompts)
        return render(self, prompts, seeds, **options)

    monkeypatch.setattr(Generator, "render", counted)
    both = (home / "small", home / "small")
    found = json.loads(succeeds("evaluate", *both, "--seeds", 2, "--json").stdout)["bundles"]
    assert [one["bundle"] for one in found] == [str(home / "small")] * 2
    assert found[0]["verdict"] == found[1]["verdict"]
    # Each of three prompts is drawn by the base once, and by both controls.
    assert len(drawn) == 3 + 2 * 3
    printed = succeeds("evaluate", *both, "--seeds", 2).stdout.splitlines()
    assert printed[0].split()[:2] == ["bundle", "verdict"]
    assert len(printed) == 1 + 2 + 2


def test_a_strict_evaluation_fails_unless_the_control_was_learned(home):
    ended = dualproc("evaluate", home / "small", "--seeds", 2, "--strict")
    assert ended.exit_code == 1
    assert "right is unknown" in ended.stdout


def test_score_refuses_files_that_are_not_pictures(home, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "not a picture" in refused("score", tmp_path / "text.png", "--spec", home / "spec.yaml")
    assert "no such file" in refused("score", tmp_path / "none.png", "--spec", home / "spec.yaml")


# Bundles


def test_bundle_show_and_verify(home, tmp_path):
    shown = succeeds("bundle", "show", home / "small").stdout
    assert "10 of 10 steps" in shown
    assert "Is the horizon at the red line?" in shown
    checked = json.loads(succeeds("bundle", "verify", home / "small", "--json").stdout)
    assert checked["valid"] is True
    assert "all as they were written" in succeeds("bundle", "verify", home / "small").stdout


def test_bundles_are_compared(home, small_spec, tmp_path):
    changes = {"name": "other", "learn": {"steps": 1, "seed": 3, "validation_pictures": 6}}
    learned = succeeds("learn", small_spec(tmp_path, changes), "-o", tmp_path / "other", "--device", "cpu")
    verdict = json.loads(succeeds("bundle", "show", tmp_path / "other", "--json").stdout)["verdict"]
    assert learned.stdout.splitlines()[0] == f"verdict: {verdict['name']}: {verdict['reason']}"
    both = tmp_path / "both.png"
    arguments = ("bundle", "diff", home / "small", tmp_path / "other", "-o", both, "-n", 2, "--device", "cpu")
    lines = succeeds(*arguments).stdout.splitlines()
    assert lines[:2] == ['name: "small" -> "other"', "learn.steps: 10 -> 1"]
    assert "learn.seed: 0 -> 3" in lines
    assert lines[-1] == f"Wrote {both}"
    prompts = ["a house in the field", "a tree", "a ball in the snow"]
    rows = {}
    for name in (home / "small", tmp_path / "other"):
        seeds = ("--seed", 2**31, "-n", 2, "-o", tmp_path / f"pictures-{name.name}", "--device", "cpu")
        drawn = succeeds("sample", *prompts, "--control", name, *seeds).stdout.splitlines()
        rows[name.name] = torch.stack([load_picture(path) for path in map(Path, drawn)]).split(2)
    sections = [
        Section(prompt, [Strip(label, rows[label][number]) for label in rows])
        for number, prompt in enumerate(prompts)
    ]
    assert (np.asarray(labelled_grid(sections)) == pixels(both)).all()
    assert "already exists" in refused(*arguments).splitlines()[-1]
    same = succeeds("bundle", "diff", home / "small", home / "small", "-n", 0)
    assert same.stdout == "the specs are equal\n"


# What goes wrong on the way


def test_full_disk_is_one_line(home, monkeypatch, tmp_path):
    def no_room(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "picture.png")

    monkeypatch.setattr("dualproc_cli.pictures.save_png", no_room)
    line = refused("sample", "a house", "--control", home / "small", "-o", tmp_path, status=1)
    assert line == "picture.png: No space left on device; make room and run the command again"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_is_one_line(error, home, monkeypatch, tmp_path):
    def no_room(*arguments, **options):
        raise error

    monkeypatch.setattr("dualproc_cli.generator.Generator.render", no_room)
    line = refused("sample", "a house", "--control", home / "small", "-o", tmp_path, status=1)
    assert "out of memory" in line


def test_markup_in_a_message_is_printed_as_it_is(tmp_path):
    assert refused("bundle", "show", tmp_path / "[red]").startswith(f"{tmp_path}/[red]: no such bundle")


# Pictures


def test_pictures_come_back_as_they_were_saved(tmp_path):
    image = torch.randint(0, 256, (3, 9, 11)) / 255
    save_png(image, tmp_path / "p.png")
    assert torch.equal(load_picture(tmp_path / "p.png"), image.float())


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "p.png")
    assert load_picture(tmp_path / "p.png").min() == 1


def test_pictures_are_upright(tmp_path):
    picture = Image.new("RGB", (16, 8), "black")
    picture.paste("white", (0, 0, 8, 8))
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    picture.save(tmp_path / "p.png", exif=exif)
    image = load_picture(tmp_path / "p.png")
    assert image.shape == (3, 16, 8)
    assert image[:, :8].min() == 1
    assert image[:, 8:].max() == 0


@pytest.mark.parametrize(
    ("name", "size", "problem"),
    [
        ("p.bmp", (64, 64), "is not a picture"),
        ("small.png", (4, 64), "is 4x64 pixels"),
        ("wide.png", (9000, 16), "is 9000x16 pixels"),
    ],
)
def test_pictures_that_no_spec_may_name_are_refused(tmp_path, name, size, problem):
    Image.new("RGB", size).save(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: {problem} .*expected"):
        load_picture(tmp_path / name)


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    def started(*arguments, **options):
        raise AssertionError("Ghostscript")

    Image.new("RGB", (64, 64)).save(tmp_path / "p.png", "EPS")
    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(UserError, match="is not a picture of a known format"):
        load_picture(tmp_path / "p.png")


def test_pictures_are_opened_in_one_place():
    package = Path(__file__).parent.parent / "dualproc_cli"
    opening = {path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text("utf-8")}
    assert opening == {"pictures.py"}


def test_names_of_prompts_differ():
    prompts = ["A house!", "a house", "a house 2", "???", "x" * 300, "ä" * 300]
    assert slugs(prompts)[:4] == ["a-house", "a-house-2", "a-house-2-2", "picture"]
    assert all(len(f"{slug}-{2**62}.png".encode()) < 256 for slug in slugs(prompts))


def test_a_caption_as_long_as_a_book_is_cut_at_once():
    strip = Strip("", torch.zeros(1, 3, 64, 64))
    started = time.monotonic()
    sheet = labelled_grid([Section("a house " * 5000, [strip])])
    assert time.monotonic() - started < 5
    cut = labelled_grid([Section("a house a house a house", [strip])])
    assert np.array_equal(np.asarray(sheet), np.asarray(cut))  # the same words fit


def test_grid_enlarges_small_pictures_and_shrinks_large_ones():
    small, large = (Section("c", [Strip("", torch.zeros(2, 3, size, size))]) for size in (64, 2048))
    assert 2 * 128 < labelled_grid([small]).width < 2 * 128 + 50
    assert 2 * 512 < labelled_grid([large]).width < 2 * 512 + 50
    tall = labelled_grid([small, Section("c " * 500, [Strip("base", torch.zeros(1, 3, 64, 64))] * 2)])
    assert tall.height > 3 * 128


def test_the_specs_text_survives(home):
    assert yaml.safe_load((home / "small" / "spec.yaml").read_text())["name"] == "small"
    assert (home / "small" / "spec.yaml").read_text() == (home / "spec.yaml").read_text()
