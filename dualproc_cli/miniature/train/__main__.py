"""``python -m dualproc_cli.miniature.train NAME``: train a network of the miniature, or go on with it."""

import argparse
import importlib
import json
import logging
from pathlib import Path

import torch

from dualproc_cli.files import write_atomically
from dualproc_cli.miniature.train.loop import Training

SAMPLES = {"autoencoder": 60_000, "generator": 560_000, "vlm": 450_000, "reader": 300_000}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dualproc_cli.miniature.train", description=__doc__)
    parser.add_argument("name", choices=[*SAMPLES, "release"])
    parser.add_argument(
        "--folder", type=Path, default=Path("miniature-training"), help="checkpoints, logs, exports"
    )
    parser.add_argument("--samples", type=int, help="how many pictures to train on in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.StreamHandler(), logging.FileHandler(options.folder / f"{options.name}.log")],
    )
    torch.set_num_threads(options.threads)
    if options.name == "release":
        importlib.import_module("dualproc_cli.miniature.train.release").release(options.folder)
        return
    torch.manual_seed(options.seed)
    module = importlib.import_module(f"dualproc_cli.miniature.train.{options.name}")
    task = module.task(options.samples or SAMPLES[options.name], options.folder, options.seed)
    training = Training(task, options.folder, options.seed)
    training.resume()
    training.run()
    figures = module.export(training, options.folder)
    facts = {
        "samples": training.samples_seen,
        "minutes": round(training.minutes, 1),
        "seed": training.seed,
        **figures,
    }
    write_atomically(options.folder / f"{options.name}.json", json.dumps(facts, indent=2) + "\n")
    logging.info("%s", facts)


if __name__ == "__main__":
    main()
