"""The reader behind the independent measures."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from dualproc_cli.files import write_atomically
from dualproc_cli.miniature.reader import Reader, scene_numbers
from dualproc_cli.miniature.train.heads import close, scene_loss
from dualproc_cli.miniature.train.loop import Task, Training
from dualproc_cli.miniature.train.pictures import Pictures

PAIRS = 0.35


def task(samples: int, folder: Path, seed: int) -> Task:
    reader = Reader().to(memory_format=torch.channels_last)
    pictures = Pictures(folder, generated=0.0)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        images, scene, _ = pictures.draw(batch_size, rng, PAIRS)
        found = reader(images.contiguous(memory_format=torch.channels_last))
        return {
            "scene": scene_loss(found, scene),
            "sun": 0.1 * close(found["sun"], scene_numbers(scene)["sun"]),
        }

    return Task("reader", reader, loss, samples, batch_size=48, learning_rate=1e-3)


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the averaged reader in half precision."""
    training.use_average()
    tensors = {name: value.half().contiguous() for name, value in training.task.modules.state_dict().items()}
    (folder / "reader").mkdir(exist_ok=True)
    write_atomically(folder / "reader" / "model.safetensors", save(tensors))
    return {}
