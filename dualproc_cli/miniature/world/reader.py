"""The scene reader: a small convolutional network that reads a scene off a picture, refined by a fit.

It shares nothing with the VLM: another architecture, another seed, other training pictures, no questions.
What it reads is refined by descending the distance between the picture and the scene's render (`fit`), so
that its numbers are those that the renderer would draw the picture from.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.miniature.world.fit import (
    choose_look,
    choose_subject,
    fit,
    nearer,
    render_error,
    split,
)
from dualproc_cli.miniature.world.scene import LOOKS, NOBODY, SIZE, SUBJECTS, Scene

FIT_STEPS = 24  # in all: half of them before the subjects are chosen, half after
# Rows: if the horizon that splits a picture best is this near to the fitted one, a fit from there is spared.
NEAR = 1.0

# How many numbers describe a scene, by name. Networks predict them shifted and scaled to about one.
SCENE_NUMBERS = {
    "horizon": 1, "outline": 1, "colors": 9, "place": 6, "on": 2,
    "near": len(SUBJECTS), "far": len(SUBJECTS) + 1, "look": len(LOOKS),
}  # fmt: skip
READER_NUMBERS = {**SCENE_NUMBERS, "sun": 1}


class Reader(nn.Module):
    """The network of the scene reader: predicts the numbers of the scene that a picture shows."""

    def __init__(self, width: int = 40) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2), nn.ReLU(),
            _down(width, 2 * width), _Residual(2 * width),
            _down(2 * width, 3 * width), _Residual(3 * width), _Residual(3 * width),
        )  # fmt: skip
        cells = 3 * width * (SIZE // 8) ** 2
        self.head = nn.Sequential(
            nn.Linear(cells, 256), nn.ReLU(), nn.Linear(256, sum(READER_NUMBERS.values()))
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict READER_NUMBERS, each [B, size], of pictures [B, 3, 64, 64] in [0, 1]."""
        numbers = self.head(self.stem(images - 0.5).flatten(1))
        return dict(zip(READER_NUMBERS, numbers.split(list(READER_NUMBERS.values()), 1), strict=True))


def load_reader(folder: Path) -> Reader:
    """Load the trained reader of a folder, frozen, in single precision."""
    reader = Reader()
    state = load_file(folder / "model.safetensors")
    reader.load_state_dict({name: value.float() for name, value in state.items()})
    return reader.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@dataclass
class Reading:
    """What was read off B pictures.

    Attributes:
        scene: the scenes that come nearest to the pictures.
        residual: [B] root mean square difference between each picture and its scene rendered.
    """

    scene: Scene
    residual: Tensor


def read(reader: Reader, images: Tensor) -> Reading:
    """Read scenes off images [B, 3, 64, 64] in [0, 1]: the network predicts, the fit refines."""
    with torch.no_grad():
        scene = scene_from_numbers(reader(images))
    halves = split(scene, images)
    # Colours that no family has are far from what the network predicts, too far for a fit.
    scene = nearer(scene, replace(scene, colors=halves.colors), images)
    scene = fit(scene, images, FIT_STEPS // 2)
    (elsewhere,) = ((halves.horizon - scene.horizon).abs() > NEAR).nonzero(as_tuple=True)
    if len(elsewhere):
        as_split = fit(halves[elsewhere], images[elsewhere], FIT_STEPS // 2)
        better = nearer(scene[elsewhere], as_split, images[elsewhere])
        index = torch.arange(len(scene))
        index[elsewhere] = len(scene) + torch.arange(len(elsewhere))
        scene = Scene.concatenate([scene, better])[index]
    scene = choose_look(scene, images)
    for slot in (0, 1):
        scene = choose_subject(scene, images, slot)
    scene = fit(scene, images, FIT_STEPS // 2)
    with torch.no_grad():
        return Reading(scene, render_error(scene, images).sqrt())


def scene_from_numbers(found: dict[str, Tensor]) -> Scene:
    """Return the scene that predicted READER_NUMBERS describe; undoes `scene_numbers`."""
    place = found["place"].view(-1, 2, 3)
    far = found["far"].argmax(1)
    near = found["near"].argmax(1)
    return Scene(
        kind=torch.stack([near, torch.where(far == len(SUBJECTS), NOBODY, far)], 1),
        look=found["look"].argmax(1),
        horizon=(found["horizon"][:, 0] + 4) * 8,
        colors=(found["colors"].view(-1, 3, 3) + 2) / 4,
        outline=found["outline"][:, 0] + 2,
        x=(place[..., 0] + 2) * 16,
        base=(place[..., 1] + 2) * 16,
        scale=place[..., 2] / 4 + 1,
        on=found["on"] > 0,
        sun_x=(found["sun"][:, 0] + 2) * 16,
    )


def scene_numbers(scene: Scene) -> dict[str, Tensor]:
    """Return the continuous READER_NUMBERS of scenes, each [B, size], as networks predict them."""
    place = torch.stack([scene.x / 16 - 2, scene.base / 16 - 2, 4 * scene.scale - 4], 2)
    return {
        "horizon": scene.horizon[:, None] / 8 - 4,
        "outline": scene.outline[:, None] - 2,
        "colors": (4 * scene.colors - 2).flatten(1),
        "place": place.flatten(1),
        "sun": scene.sun_x[:, None] / 16 - 2,
    }


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _down(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.ReLU())
