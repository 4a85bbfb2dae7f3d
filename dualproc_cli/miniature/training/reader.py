"""The training of the scene reader, which the independent measures use."""

from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from dualproc_cli.files import write_atomically
from dualproc_cli.miniature.training.heads import number_loss, scene_loss
from dualproc_cli.miniature.training.loop import Chunks, Task, Training, half_precision
from dualproc_cli.miniature.training.pictures import TrainingPictures
from dualproc_cli.miniature.world.reader import Reader, scene_numbers
from dualproc_cli.miniature.world.scene import Scene

PAIRS = 0.5  # share of the scenes with two subjects
CHUNK, PART, REUSE = 2048, 128, 4  # pictures made at a time, in parts, and how often each is used


def task(samples: int, folder: Path, seed: int) -> Task:
    """Return the task of training the scene reader, with the autoencoder in ``folder`` if there is one."""
    reader = Reader().to(memory_format=torch.channels_last)
    pictures = TrainingPictures(folder, generated=0.0)

    def make_chunk(rng: torch.Generator) -> tuple[Tensor, Scene]:
        parts = [pictures.sample(PART, rng, PAIRS) for _ in range(CHUNK // PART)]
        images, scenes, _, _ = zip(*parts, strict=True)
        return torch.cat(images), Scene.concatenate(scenes)

    chunks = Chunks(make_chunk, seed, CHUNK * REUSE)

    def loss(rng: torch.Generator, batch_size: int, step: int) -> dict[str, Tensor]:
        which = torch.randint(CHUNK, (batch_size,), generator=rng)
        images, scenes = chunks.at(step * batch_size)
        scene = scenes[which]
        with half_precision():
            predicted = reader(images[which].contiguous(memory_format=torch.channels_last))
        predicted = {name: numbers.float() for name, numbers in predicted.items()}
        return {
            "scene": scene_loss(predicted, scene),
            "sun": 0.1 * number_loss(predicted["sun"], scene_numbers(scene)["sun"]),
        }

    return Task("reader", reader, loss, samples, batch_size=48, learning_rate=1e-3)


def export(training: Training, folder: Path) -> dict[str, float]:
    """Save the averaged reader in half precision; it has no held-out figures here."""
    training.use_average()
    tensors = {name: value.half().contiguous() for name, value in training.task.modules.state_dict().items()}
    (folder / "reader").mkdir(exist_ok=True)
    write_atomically(folder / "reader" / "model.safetensors", save(tensors))
    return {}
