"""Fixtures that many tests share: small models and specs that use them."""

import os
import signal
from pathlib import Path

import pytest
import yaml

# Shells let background jobs ignore SIGINT, which some tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HF_HUB_OFFLINE"] = "1"  # no test may use the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are fastest on one thread


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=100, help="runs to kill in test_kill_and_resume.py")


def pytest_collection_modifyitems(items):
    """What takes long starts first, so that no process is left with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def generator_folder(tmp_path_factory):
    """A tiny FluxPipeline for 64x64 pictures, of random weights."""
    from small_generator import make_generator

    return make_generator(tmp_path_factory.mktemp("generator"))


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory):
    """A tiny Idefics3 for 64x64 pictures, of random weights."""
    from small_vlm import make_vlm

    return make_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="session")
def small_spec(generator_folder, vlm_folder):
    """Writes a spec for the small models: ``small_spec(folder, {"name": "other"})`` returns its path."""

    def write(folder: Path, changes: dict | None = None) -> Path:
        spec = {
            "name": "small",
            "description": "A small control.",
            "generator": {
                "model": str(generator_folder),
                "width": 64,
                "height": 64,
                "steps": 1,
                "guidance_scale": 0.0,
            },
            "vlm": {"model": str(vlm_folder)},
            "prompts": {"train": ["a house in the field", "a tree"], "held_out": ["a ball in the snow"]},
            "visual_prompts": {"target": {"type": "line", "position": 0.65}},
            "questions": [
                {
                    "name": "at-the-line",
                    "question": "Is the horizon at the red line?",
                    "answer": "Yes",
                    "alternatives": ["No"],
                    "visual_prompt": "target",
                    "paraphrases": ["Does the horizon lie on the red line?"],
                },
                {"name": "night", "question": "Is it night?", "answer": "night"},
            ],
            "learn": {
                "steps": 6,
                "validation_pictures": 0,
                "batch_size": 2,
                "learning_rate": 0.01,
                "adapter": {"rank": 2, "scale": 1.0},
                "keep": {"picture": 1.0, "structure": 1.0, "smoothness": 1.0},
                "jitter": {"noise": 0.02, "shift": 0.05},
            },
        }
        for part, values in (changes or {}).items():
            spec[part] = {**spec[part], **values} if isinstance(values, dict) else values
        path = folder / "spec.yaml"
        path.write_text("# a small spec\n" + yaml.safe_dump(spec, sort_keys=False))
        return path

    return write
