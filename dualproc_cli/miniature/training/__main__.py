"""``python -m dualproc_cli.miniature.training NAME``: train a network of the miniature, or resume it."""

import argparse
import importlib
import json
import logging
import math
import platform
from pathlib import Path

import torch

from dualproc_cli.device import pick_device
from dualproc_cli.files import write_atomically
from dualproc_cli.miniature.training.loop import Training

SAMPLES = {  # how many each is trained on by default
    "autoencoder": 33_600,
    "generator": 560_000,
    "vlm": 300_000,
    "adversarial": 100_000,
    "reader": 600_000,
}


def main() -> None:
    """Parse the arguments, train, export, and record the facts of the training."""
    parser = argparse.ArgumentParser(prog="python -m dualproc_cli.miniature.training", description=__doc__)
    parser.add_argument("name", choices=[*SAMPLES, "attacks", "release"], help="what to do")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("miniature-training"),
        help="where checkpoints, logs and exports are",
    )
    parser.add_argument("--samples", type=int, help="how many samples to train on in all")
    parser.add_argument("--minutes", type=float, default=math.inf, help="train on fewer if that takes longer")
    parser.add_argument("--batch-size", type=int, help="samples a step")
    parser.add_argument("--attacks", type=int, default=32, help="how many adapters attack the VLM")
    parser.add_argument("--about", nargs="+", help="kinds of question that they are about, such as palette")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.StreamHandler(), logging.FileHandler(options.folder / f"{options.name}.log")],
    )
    torch.set_num_threads(options.threads)
    if options.name == "release":  # always on the CPU, since it measures how fast a laptop is
        importlib.import_module("dualproc_cli.miniature.training.release").release(options.folder)
        return
    if options.device != "cpu":  # before the modules that make tensors when they are imported
        torch.set_default_device(pick_device(options.device))
    torch.manual_seed(options.seed)
    if options.name == "attacks":
        attacks = importlib.import_module("dualproc_cli.miniature.training.attacks")
        attacks.attack(options.folder, options.seed, options.attacks, options.about or attacks.ATTACKED_KINDS)
        return
    module = importlib.import_module(f"dualproc_cli.miniature.training.{options.name}")
    task = module.task(options.samples or SAMPLES[options.name], options.folder, options.seed)
    task.batch_size = options.batch_size or task.batch_size
    training = Training(task, options.folder, options.seed)
    training.limit = options.minutes
    training.resume()
    training.run()
    record = options.folder / f"{options.name}.json"
    before = json.loads(record.read_text()) if task.warm_start and record.exists() else None
    figures = module.export(training, options.folder)
    facts = {
        "samples": training.samples_seen,
        "minutes": round(training.minutes, 1),
        "seed": training.seed,
        "batch_size": task.batch_size,
        "learning_rate": task.learning_rate,
        "machine": f"{platform.machine()}, {options.device}, threads: {options.threads}",
        **figures,
    }
    if before:  # the facts of the training whose weights this one started from
        facts["before"] = before
    write_atomically(record, json.dumps(facts, indent=2) + "\n")
    training.checkpoint.unlink()  # its weights are exported; the next call starts a new training
    logging.info("%s: exported: %s", options.name, json.dumps(facts))


if __name__ == "__main__":
    main()
