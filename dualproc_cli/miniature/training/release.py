"""The release of trained networks: copies, digests, held-out figures and the model card."""

import json
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from dualproc_cli.files import digest, folder_atomically, write_atomically
from dualproc_cli.miniature import DIGESTS, WEIGHTS
from dualproc_cli.miniature.training.card import card
from dualproc_cli.miniature.training.figures import (
    corrupted_renders,
    generated,
    generator_scenes,
    palette_figures,
    picture_figures,
    read_in_parts,
    reader_figures,
    renders,
    vlm_figures,
)
from dualproc_cli.miniature.training.generator_model import generate
from dualproc_cli.miniature.training.vlm import load_networks
from dualproc_cli.miniature.world.reader import load_reader
from dualproc_cli.pictures import save_png

PARTS = ("generator", "vlm", "reader")
TRAININGS = ("autoencoder", "generator", "reader", "vlm", "adversarial")
GRID, PICTURES = 64, 768  # generated pictures: shown in the card, and judged
WORLD = 24  # renders shown in the card
# What a user waits for before the first picture.
LOADING = """
from diffusers import FluxPipeline
from transformers import AutoModelForImageTextToText, AutoProcessor
FluxPipeline.from_pretrained("generator")
AutoProcessor.from_pretrained("vlm")
AutoModelForImageTextToText.from_pretrained("vlm")
"""


def release(folder: Path) -> None:
    """Copy the trained networks of ``folder`` into the package, measure them and write the model card."""
    with folder_atomically(WEIGHTS, overwrite=True) as weights:
        for part in PARTS:
            shutil.copytree(folder / part, weights / part)
        _tidy(weights / "generator" / "vae" / "config.json")
        write_digests(weights)
    facts = {name: _training_facts(folder, name) for name in TRAININGS}
    figures, pictures = measure_weights()
    write_atomically(WEIGHTS / "figures.json", json.dumps({"training": facts, **figures}, indent=2) + "\n")
    save_grid(pictures[:GRID], WEIGHTS / "grid.png")
    save_grid(next(renders(1)).images[:WORLD], WEIGHTS / "world.png")
    write_atomically(WEIGHTS / "README.md", card(facts, figures))


def _tidy(config: Path) -> None:
    """Drop the training's folder from a config, and a key that diffusers derives itself and warns about."""
    kept = {
        key: value
        for key, value in json.loads(config.read_text()).items()
        if key not in ("_name_or_path", "block_out_channels")
    }
    write_atomically(config, json.dumps(kept, indent=2) + "\n")


def write_digests(weights: Path) -> None:
    """Write the SHA-256 of every file of the networks under ``weights`` to DIGESTS."""
    files = sorted(path for part in PARTS for path in (weights / part).rglob("*") if path.is_file())
    digests = {path.relative_to(weights).as_posix(): digest(path) for path in files}
    write_atomically(weights / DIGESTS, json.dumps(digests, indent=2) + "\n")


def measure_weights() -> tuple[dict[str, Any], Tensor]:
    """Return the held-out figures of the released weights, and generated pictures [N, 3, H, W]."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOADING], cwd=WEIGHTS, check=True)
    loading = time.perf_counter() - started
    pipeline = FluxPipeline.from_pretrained(WEIGHTS / "generator", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    networks = load_networks(WEIGHTS).eval()
    reader = load_reader(WEIGHTS / "reader")
    noise, prompts, scenes = generator_scenes(PICTURES)
    generate(pipeline, noise[:16], prompts[:16], steps=1)
    started = time.perf_counter()
    generate(pipeline, noise[:16], prompts[:16], steps=1)
    sixteen = time.perf_counter() - started
    one, four = (generate(pipeline, noise, prompts, steps) for steps in (1, 4))
    seen, seen_in_four = (read_in_parts(reader, images) for images in (one, four))
    figures = {
        "generator_millions": round(sum(p.numel() for p in pipeline.transformer.parameters()) / 1e6, 2),
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "generator_1_step": picture_figures(one, scenes, seen),
        "generator_4_steps": picture_figures(four, scenes, seen_in_four),
        "vlm_on_renders": vlm_figures(networks, renders(64)),
        "vlm_on_generated": vlm_figures(networks, [*generated(one, seen)] * 4),
        "vlm_on_corrupted": vlm_figures(networks, corrupted_renders(32)),
        "vlm_yes_to_palettes": palette_figures(networks),
        "measures_on_renders": reader_figures(reader),
        "seconds": {"import_and_load_both": round(loading, 2), "sixteen_pictures": round(sixteen, 2)},
    }
    return figures, one


def save_grid(images: Tensor, path: Path, columns: int = 8, enlarge: int = 4, gap: int = 4) -> None:
    """Save pictures [N, 3, H, W] as a grid, pixels enlarged, pictures ``gap`` pixels apart."""
    large = images.repeat_interleave(enlarge, 2).repeat_interleave(enlarge, 3)
    padded = torch.nn.functional.pad(large, (0, gap, 0, gap), value=1.0)
    rows = [torch.cat(list(padded[start : start + columns]), 2) for start in range(0, len(padded), columns)]
    save_png(torch.cat(rows, 1)[:, :-gap, :-gap], path)


def _training_facts(folder: Path, name: str) -> dict[str, Any]:
    """Return what a training recorded; nothing if it was not run."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}
