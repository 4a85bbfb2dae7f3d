"""The command line as a user meets it: short answers, pipes, Ctrl-C, progress, tracebacks on request."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from spec_files import SHORTEST
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.commands import libraries, stage_line
from dualproc_cli.spec import GeneratorSpec
from dualproc_cli.stages import stage


def start(*arguments, **options):
    command = [sys.executable, "-m", "dualproc_cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SHORTEST)
    return path


def test_general_options_also_stand_behind_the_command(spec):
    plain = CliRunner().invoke(app, ["check", str(spec)]).output
    for arguments in (
        ["check", str(spec), "-q"],
        ["check", "--quiet", str(spec)],
        ["check", "-q", "--", str(spec)],
    ):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.output) == (0, plain)
    after = CliRunner().invoke(app, ["check", "--", "--debug"])
    assert "--debug: cannot be read" in after.output
    traced = CliRunner().invoke(app, ["check", "none.yaml", "--debug"])
    assert "Traceback" in traced.output


@pytest.mark.parametrize("command", ["", "check", "bundle show"])
def test_h_is_help(command):
    short, long = (CliRunner().invoke(app, [*command.split(), option]) for option in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output


def test_shells_complete(spec):
    environment = {
        **os.environ,
        "_DUALPROC_COMPLETE": "complete_bash",
        "COMP_WORDS": "dualproc sa",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "dualproc_cli"], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["sample"]


def test_a_table_in_a_pipe_has_one_row_a_line(spec):
    question = "Is the horizon, which is where the ground ends, " * 20 + "at the red line?"
    setting = f"questions.0.question={question}"
    result = CliRunner().invoke(app, ["check", str(spec), "--values", "--set", setting])
    assert f'questions.0.question               "{question}"' in result.stdout.replace("  " * 200, "")
    rows = result.stdout.splitlines()[4:]
    assert all(row.split()[-1] in ("spec", "preset", "default", "--set") for row in rows)


def test_debug_shows_the_traceback_and_quiet_no_warning(tmp_path):
    plain, debug = (
        CliRunner().invoke(app, [*option, "check", str(tmp_path / "none")]) for option in ([], ["--debug"])
    )
    assert (plain.exit_code, debug.exit_code) == (2, 2)
    assert "Traceback" not in plain.stderr
    assert debug.stderr.startswith("Traceback (most recent call last):")
    assert debug.stderr.endswith(plain.stderr)
    for option, warned in ((["--quiet"], False), ([], True)):
        result = CliRunner().invoke(app, [*option, "check", str(tmp_path / "none")])
        assert result.stderr == plain.stderr
        assert logging.getLogger("dualproc_cli.vlm").isEnabledFor(logging.WARNING) == warned


def test_a_reader_that_leaves_is_no_error(spec):
    with start("check", spec, "--json", *["--values", spec] * 200) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("after", [0.15, 0.4, 0.8])
def test_an_early_interrupt_is_quiet(after, spec):
    with start("check", "--plan", spec, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert errors in ("", "interrupted\n")


def test_stages_are_shown_on_a_terminal_alone(monkeypatch):
    for terminal, quiet in ((True, False), (False, False), (True, True)):
        written = io.StringIO()
        line = stage_line.show_stages(quiet)
        line._console = Console(file=written, force_terminal=terminal, width=60)
        stage("loading [miniature]")
        stage("self-test")
        time.sleep(0.2)  # it is drawn some times a second
        line.stop()
        assert ("loading [miniature]" in written.getvalue()) == (terminal and not quiet)
        assert ("self-test" in written.getvalue()) == (terminal and not quiet)


def test_stages_name_what_a_command_does(caplog, tmp_path):
    with caplog.at_level(logging.INFO, "dualproc_cli.stages"):
        result = CliRunner().invoke(app, ["sample", "a house", "-o", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert [record.getMessage() for record in caplog.records] == [
        "loading libraries",
        "loading miniature",
        "self-test of miniature",
        "a house: picture 1 of 1",
    ]
    assert result.stderr == ""


def test_a_command_on_the_miniature_imports_nothing_that_it_does_not_use(tmp_path):
    imported = _imported_by("sample", "a house", "-o", tmp_path)
    assert "diffusers" in imported
    assert not imported & {"bitsandbytes.nn", "torchao.quantization", "scipy.optimize", "triton.runtime"}


def test_a_check_imports_neither_torch_nor_the_client_of_the_hub(spec):
    imported = _imported_by("check", spec)
    assert "dualproc_cli.spec.load" in imported
    assert not imported & {"torch", "transformers", "diffusers", "huggingface_hub.hf_api", "PIL.Image"}


def _imported_by(*arguments):
    """Return the modules that a command imports."""
    with start(*arguments, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    return {line.rpartition("|")[2].strip() for line in errors.splitlines()}


def test_packages_are_hidden_from_a_process_of_the_miniature_alone(monkeypatch):
    monkeypatch.setattr(libraries, "OPTIONAL", ("no_such_package",))
    monkeypatch.delitem(sys.modules, "no_such_package", raising=False)
    miniature = GeneratorSpec()
    for owns, models in ((False, [miniature]), (True, []), (True, [miniature, GeneratorSpec(model="a/b")])):
        monkeypatch.setattr(libraries, "owns_process", owns)
        with libraries.importing(*models):
            assert "no_such_package" not in sys.modules
    monkeypatch.setattr(libraries, "owns_process", True)
    with libraries.importing(miniature):
        assert sys.modules["no_such_package"] is None
    del sys.modules["no_such_package"]


# Pictures that exist


def test_pictures_that_exist_are_neither_lost_nor_drawn_again(tmp_path):
    def sample(*arguments):
        return CliRunner().invoke(
            app, ["sample", "a house", "-o", str(tmp_path / "out"), "--device", "cpu", *arguments]
        )

    first, second = (tmp_path / "out" / f"a-house-{seed}.png" for seed in (0, 1))
    assert sample().exit_code == 0
    first.write_bytes(b"a picture of mine")
    refused = sample("-n", "2")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"{first}: exists, as 1 of the 2 pictures do")
    assert not second.exists()
    left = sample("-n", "2", "--skip-existing")
    assert (left.exit_code, left.stdout) == (0, f"{second}\n")
    assert first.read_bytes() == b"a picture of mine"
    assert sample("--overwrite").exit_code == 0
    assert first.read_bytes().startswith(b"\x89PNG")


def test_no_empty_folder_is_left(tmp_path):
    (tmp_path / "model").mkdir()
    result = CliRunner().invoke(
        app, ["sample", "a house", "--model", str(tmp_path / "model"), "-o", str(tmp_path / "a" / "b")]
    )
    assert result.exit_code == 2
    assert os.listdir(tmp_path) == ["model"]


def test_a_picture_says_how_it_was_drawn(tmp_path):
    from PIL import Image

    prompt = "ein Haus, 家"
    CliRunner().invoke(app, ["sample", prompt, "-o", str(tmp_path), "--seed", "7", "--device", "cpu"])
    (path,) = tmp_path.iterdir()
    with Image.open(path) as picture:
        texts = picture.text
    assert texts["Description"] == prompt
    facts = json.loads(texts["dualproc"])
    assert facts["generator"]["model"] == "miniature"
    assert len(facts["generator"]["revision"]) > 8
    assert (facts["prompt"], facts["seed"], facts["steps"], facts["controls"]) == (prompt, 7, 1, [])
