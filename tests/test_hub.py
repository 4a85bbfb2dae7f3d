"""Models on the hub: whether it answers is known within a second, and what is cached is read without it."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import constants

from dualproc_cli.models import hub, source
from dualproc_cli.spec import VlmSpec

NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol, which refuses connections
SPEC = """\
name: far
prompts: {train: [a house]}
vlm: {model: nobody/none}
questions: [{name: one, question: "Is it night?", answer: "Yes"}]
"""


@pytest.fixture
def online(monkeypatch):
    """The hub's client may use the network, whose address is one that refuses connections."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    hub.hub_reachable.cache_clear()
    yield
    hub.hub_reachable.cache_clear()


@pytest.mark.parametrize(
    "arguments", [["sample", "a house", "--model", "nobody/none"], ["check", "--plan", "spec.yaml"]]
)
def test_a_model_that_is_nowhere_is_one_line_at_once(arguments, tmp_path):
    (tmp_path / "spec.yaml").write_text(SPEC)
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": NOBODY, "HF_HOME": str(tmp_path / "cache"), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "dualproc_cli", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert line.endswith(
        ".model: nobody/none: the hub cannot be reached and the local cache has no copy; connect, or name "
        "a folder"
    )
    assert done.returncode == 2
    assert "| torch\n" not in done.stderr  # the model is asked for before anything slow is imported
    assert not (tmp_path / "pictures").exists()


def test_a_hub_that_does_not_answer_is_given_up_on(online, monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: never.wait(10) and [])
    started = time.monotonic()
    assert not hub.hub_reachable()
    assert time.monotonic() - started < 2
    never.set()


def test_a_hub_that_answers_is_reached(online, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.hub_reachable()
        hub.hub_reachable.cache_clear()
        monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.invalid")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub.hub_reachable()


def test_what_is_cached_is_read_without_the_hub(online, vlm_folder, monkeypatch, tmp_path):
    from dualproc_cli.vlm import load_processor

    repo = tmp_path / "models--some--one"
    shutil.copytree(vlm_folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    spec = VlmSpec(model="some/one")
    source.require_models(spec)
    started = time.monotonic()
    assert load_processor(spec).revision == "a" * 40
    assert time.monotonic() - started < 10  # the hub's client alone would try again for half a minute
