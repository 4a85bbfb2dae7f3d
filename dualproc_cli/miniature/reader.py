"""A small convolutional network that reads a scene off a picture, and the fit that makes the reading exact.

It shares nothing with the VLM: another architecture, another seed, other training pictures, no questions.
What it reads is refined by descending the distance between the picture and the scene's own render, so that a
number means what the renderer means by it, and what is left over is what no scene of the world looks like.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from dualproc_cli.miniature.render import render
from dualproc_cli.miniature.scene import HORIZON, LOOKS, NOBODY, OUTLINE, SIZE, SUBJECTS, Scene

FIT_STEPS = 24
# Mean square difference that a farther subject must explain. Otherwise one in twelve pictures of one subject
# gets a second, small one for what is left over; as many true ones are found.
FAR_COST = 4e-4
# How far a step of the fit may move each parameter, so that all mean about as much in the picture.
FIT_RATES = {
    "horizon": 0.25,
    "outline": 0.15,
    "colors": 0.01,
    "x": 0.25,
    "base": 0.25,
    "scale": 0.01,
    "sun_x": 0.25,
}
FIT_LIMITS = {
    "horizon": (SIZE * (HORIZON[0] - 0.1), SIZE * (HORIZON[1] + 0.1)),
    "outline": (OUTLINE[0] / 2, OUTLINE[1] + 1),
    "colors": (0.0, 1.0),
    "scale": (0.3, 2.0),
}

# The numbers that describe a scene, as networks predict them: shifted and scaled to about one.
SCENE_NUMBERS = {
    "horizon": 1, "outline": 1, "colors": 9, "place": 6, "on": 2,
    "near": len(SUBJECTS), "far": len(SUBJECTS) + 1, "look": len(LOOKS),
}  # fmt: skip
READER_NUMBERS = {**SCENE_NUMBERS, "sun": 1}


class Reader(nn.Module):
    """Pictures [B, 3, 64, 64] in [0, 1] to READER_NUMBERS, a dictionary of [B, size]."""

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
        numbers = self.head(self.stem(images - 0.5).flatten(1))
        return dict(zip(READER_NUMBERS, numbers.split(list(READER_NUMBERS.values()), 1), strict=True))


def load_reader(folder: Path) -> Reader:
    """The trained reader in a folder, frozen, in single precision."""
    reader = Reader()
    state = load_file(folder / "model.safetensors")
    reader.load_state_dict({name: value.float() for name, value in state.items()})
    return reader.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@dataclass
class Reading:
    """What was read off B pictures."""

    scene: Scene
    residual: Tensor  # [B] root mean square difference between the picture and the scene rendered


def read(reader: Reader, images: Tensor) -> Reading:
    """Read scenes off images [B, 3, 64, 64] in [0, 1]: the network's reading, then the fit."""
    with torch.no_grad():
        scene = scene_from_numbers(reader(images))
    scene = _fit(scene, images, FIT_STEPS // 2)
    for slot in (0, 1):
        scene = _choose_subject(scene, images, slot)
    scene = _fit(scene, images, FIT_STEPS // 2)
    with torch.no_grad():
        return Reading(scene, _distance(scene, images).sqrt())


def scene_from_numbers(found: dict[str, Tensor]) -> Scene:
    """Undo the shifts and scales of SCENE_NUMBERS."""
    place = found["place"].view(-1, 2, 3)
    far = found["far"].argmax(1)
    near = found["near"].argmax(1)
    return Scene(
        kind=torch.stack([near, torch.where(far == len(SUBJECTS), NOBODY, far)], 1),
        look=found["look"].argmax(1),
        horizon=(found["horizon"][:, 0] + 4) * 8,
        family=torch.zeros(len(near), dtype=torch.long),
        colors=(found["colors"].view(-1, 3, 3) + 2) / 4,
        outline=found["outline"][:, 0] + 2,
        x=(place[..., 0] + 2) * 16,
        base=(place[..., 1] + 2) * 16,
        scale=place[..., 2] / 4 + 1,
        on=found["on"] > 0,
        sun_x=(found["sun"][:, 0] + 2) * 16,
    )


def scene_numbers(scene: Scene) -> dict[str, Tensor]:
    """The continuous ones of SCENE_NUMBERS of a scene, [B, size], and "sun"."""
    place = torch.stack([scene.x / 16 - 2, scene.base / 16 - 2, 4 * scene.scale - 4], 2)
    return {
        "horizon": scene.horizon[:, None] / 8 - 4,
        "outline": scene.outline[:, None] - 2,
        "colors": (4 * scene.colors - 2).flatten(1),
        "place": place.flatten(1),
        "sun": scene.sun_x[:, None] / 16 - 2,
    }


def _fit(scene: Scene, images: Tensor, steps: int) -> Scene:
    """Projected Adam on the continuous parameters of each scene."""
    free = {name: getattr(scene, name).detach().clone().requires_grad_() for name in FIT_RATES}
    _project(free)
    optimizer = torch.optim.Adam([{"params": [value]} for value in free.values()], betas=(0.8, 0.95))
    for step in range(steps):
        for group, rate in zip(optimizer.param_groups, FIT_RATES.values(), strict=True):
            group["lr"] = rate * (1 - step / steps)
        with torch.enable_grad():
            error = render(replace(scene, **free)).images - images
            # Robust: what the scene cannot explain should not pull at what it can.
            loss = (torch.sqrt(error.square() + 0.01) - 0.1).mean((1, 2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _project(free)
    return replace(scene, **{name: value.detach() for name, value in free.items()})


@torch.no_grad()
def _project(free: dict[str, Tensor]) -> None:
    """Back into the limits, in place: a clamp inside the render would leave no gradient to come back by."""
    for name, (low, high) in FIT_LIMITS.items():
        free[name].clamp_(low, high)


@torch.no_grad()
def _choose_subject(scene: Scene, images: Tensor, slot: int) -> Scene:
    """Of all subjects, attribute on or off (and nobody, for the farther one), the one that fits best."""
    kinds = range(len(SUBJECTS)) if slot == 0 else range(NOBODY, len(SUBJECTS))
    states = torch.tensor([(kind, on) for kind in kinds for on in (False, True)])
    distances = torch.stack([_distance(_with_subject(scene, slot, state), images) for state in states])
    if slot == 1:
        distances += FAR_COST * (states[:, :1] != NOBODY)
    return _with_subject(scene, slot, states[distances.argmin(0)])


def _with_subject(scene: Scene, slot: int, state: Tensor) -> Scene:
    """The scene with kind and attribute ``state`` [2] or [B, 2] in one slot."""
    kind, on = scene.kind.clone(), scene.on.clone()
    kind[:, slot], on[:, slot] = state[..., 0], state[..., 1].bool()
    return replace(scene, kind=kind, on=on)


def _distance(scene: Scene, images: Tensor) -> Tensor:
    return (render(scene).images - images).square().mean((1, 2, 3))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


def _down(width: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.ReLU())
