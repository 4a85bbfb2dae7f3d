"""Runs that are killed at random instants go on to the adapter of an undisturbed run, bit for bit.

A hundred of them: ``pytest -m campaign tests/test_kill_and_resume.py -n 0 -s``; ``--kills`` gives another
number.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from dualproc_cli.__main__ import app
from dualproc_cli.bundle import Bundle
from dualproc_cli.learning import learn
from dualproc_cli.learning.output import Output
from dualproc_cli.spec import load_spec

KILLS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM, SIGKILL": (signal.SIGTERM, signal.SIGKILL),
}
# Both phases, and a checkpoint each step: there is much to be interrupted.
LEARN = {
    **{"where": ["noise"], "steps": 4, "teach": {"steps": 4}, "batch_size": 2, "checkpoint_every": 1},
    "validation_pictures": 0,
}


def start(spec: Path, output: Path, *options: str) -> int:
    """Start `learn` in a forked process, which prints into ``log`` beside the spec; return its id."""
    arguments = ["learn", str(spec), "-o", str(output), "--device", "cpu", *options]
    if pid := os.fork():
        return pid
    status = 99  # in the child, which must not go back into pytest
    try:
        log = os.open(spec.with_name("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        app(arguments, prog_name="dualproc")
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def finish(spec: Path, output: Path) -> tuple[bytes, float]:
    """Learn until the bundle is there, as a user would; return the adapter and the last run's seconds."""
    for _ in range(3):
        options = ["--resume"] if Output(output).checkpoint.exists() else []
        began = time.monotonic()
        _, status = os.waitpid(start(spec, output, *options), 0)
        if status == 0:
            Bundle.open(output)
            return (output / "pytorch_lora_weights.safetensors").read_bytes(), time.monotonic() - began
    raise AssertionError(spec.with_name("log").read_text())


def killed(spec: Path, output: Path, signals: tuple[int, ...], delay: float) -> str:
    """Learn, send the signals after ``delay`` seconds, and return what the run left."""
    pid = start(spec, output)
    time.sleep(delay)
    for number in signals:
        os.kill(pid, number)
        time.sleep(0.02)
    os.waitpid(pid, 0)
    names = os.listdir(output.parent)
    if any(name.endswith(".partial") for name in names):
        return "a file half written"
    if Output(output).checkpoint.exists():
        return "a checkpoint"
    return "a bundle" if output.exists() else "nothing"


def campaign(spec: Path, kills: int, seed: int, left: Counter) -> None:
    """Kill ``kills`` runs and finish each; count in ``left`` what those left that were finished rightly."""
    rng, folder = random.Random(seed), spec.parent
    wanted, seconds = finish(spec, folder / "straight")
    files = {*os.listdir(folder), "out"}
    for number in range(kills):
        name = list(KILLS)[number % len(KILLS)]
        output, delay = folder / "out", rng.uniform(0, seconds)
        state = killed(spec, output, KILLS[name], delay)
        if state != "a bundle":
            assert finish(spec, output)[0] == wanted, f"{name} after {delay:.2f} s left {state}"
        assert (output / "pytorch_lora_weights.safetensors").read_bytes() == wanted
        assert set(os.listdir(folder)) == files, "something was left"
        assert "Traceback" not in (folder / "log").read_text()
        shutil.rmtree(output)
        left[state] += 1


@pytest.mark.campaign
def test_killed_runs_are_finished_bit_for_bit(small_spec, tmp_path, pytestconfig):
    torch.set_num_threads(1)
    spec = small_spec(tmp_path, {"learn": LEARN, "prompts": {"train": ["a house"], "held_out": []}})
    learn(load_spec(spec), tmp_path / "first", device=torch.device("cpu"))  # imports, which forks inherit
    kills, began, left = pytestconfig.getoption("kills"), time.monotonic(), Counter()
    try:
        campaign(spec, kills, 0, left)
    finally:  # also when it fails, or somebody ends it
        print(f"{left.total()} of {kills} in {time.monotonic() - began:.0f} s; they left {dict(left)}")
