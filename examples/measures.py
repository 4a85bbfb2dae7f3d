"""Try the measures on pictures with known answers, and write the table `measures.md`.

    python examples/measures.py [--judges FOLDER]

The pictures are photographs that come with scikit-image and scikit-learn, changed so that the answer is
known: painted with the colours of a palette, outlined with a pen of known width, blurred, gridded. FOLDER
holds what `train_judges.py` trained; without it, measures that need a model keep their lines of the table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from make import markdown
from skimage import data, transform
from sklearn.datasets import load_sample_images
from torch import Tensor

from dualproc_cli.measures import Evidence
from dualproc_cli.measures.color import ciede2000, lab, lab_difference
from dualproc_cli.measures.line_weight import line_widths
from dualproc_cli.measures.palette import Palette
from dualproc_cli.measures.statistic import clipping, high_frequency, periodicity, saturation
from dualproc_cli.spec import ControlSpec, PalettePrompt, PromptsSpec, Question
from dualproc_cli.spec.measures import PaletteMeasure

HERE = Path(__file__).parent
RESULTS, TABLE = HERE / "measures.json", HERE / "measures.md"
SIDE = 256  # pixels
PALETTES = (("#1b3a4b", "#f2e8cf", "#bc4749"), ("#386641", "#a7c957", "#f2e8cf", "#6a4c93"))
WIDTHS = (0.02, 0.03, 0.05, 0.08)  # of the height

HEAD = """\
# How far the measures are off

`python examples/measures.py` tries measures on pictures whose answer is known, and writes this table. The
pictures are seven photographs that come with scikit-image and scikit-learn, at 256 x 256 pixels, changed as
the table says, and drawings. What measures of a model find depends on the model: {judged}.

"""
JUDGED = """\
the lines about scenes are
about small models of transformers' classes that `train_judges.py` trains on the miniature's world alone"""

Row = tuple[str, str, list[float], str]  # measure, pictures, errors, unit


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--judges", type=Path, help="folder of what train_judges.py trained")
    judges = parser.parse_args().judges
    pictures = photographs()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows: list[Row] = [*palette(pictures), *statistics(pictures), *line_weight(pictures)]
    for measure, shown, errors, unit in rows:
        found[f"{measure}: {shown}"] = {
            "measure": measure,
            "pictures": shown,
            "count": len(errors),
            "mean": float(np.mean(errors)),
            "largest": float(np.max(errors)),
            "unit": unit,
        }
        print(measure, shown, np.mean(errors), np.max(errors), flush=True)
    if judges:
        from judged_world import judged_world

        found |= judged_world(judges)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    by_model = any("scene" in one["pictures"] for one in found.values())
    TABLE.write_text(HEAD.format(judged=JUDGED if by_model else "none is in the table") + table(found))


def table(found: dict[str, dict]) -> str:
    """Return the table of what was found."""
    rows = [["measure", "pictures", "how many", "mean error", "largest", "of"]]
    for one in found.values():
        numbers = (f"{one['mean']:.2g}", f"{one['largest']:.2g}")
        rows.append([one["measure"], one["pictures"], str(one["count"]), *numbers, one["unit"]])
    return markdown(rows)


def photographs() -> Tensor:
    """Return the photographs as [7, 3, SIDE, SIDE] in [0, 1], their middle squares."""
    china, flower = load_sample_images().images
    others = (data.astronaut, data.coffee, data.chelsea, data.rocket, data.hubble_deep_field)
    return torch.stack([_square(picture) for picture in (china, flower, *(load() for load in others))])


def _square(picture: np.ndarray) -> Tensor:
    side = min(picture.shape[:2])
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    middle = picture[top : top + side, left : left + side]
    small = transform.resize(middle, (SIDE, SIDE), anti_aliasing=True)
    return torch.from_numpy(small).float().permute(2, 0, 1).clamp(0, 1)


def palette(pictures: Tensor) -> Iterator[Row]:
    """Photographs painted with the nearest colours of a palette, and asked about all or one of them."""
    whole, part, noisy = [], [], []
    for names in PALETTES:
        colors = torch.tensor([_rgb(name) for name in names])
        nearest = lab_difference(lab(pictures.movedim(1, -1))[..., None, :], lab(colors)).argmin(-1)
        painted = colors[nearest].movedim(-1, 1)
        whole += _palette(painted, names).tolist()
        noise = 0.02 * torch.randn(painted.shape, generator=torch.Generator().manual_seed(0))
        noisy += _palette((painted + noise).clamp(0, 1), names).tolist()
        shares = torch.nn.functional.one_hot(nearest, len(names)).float().mean((1, 2))
        apart = ciede2000(colors, colors[:1].expand_as(colors))
        part += (_palette(painted, names[:1]) - (shares * apart).sum(1)).abs().tolist()
    yield "palette", "painted with its colours", whole, "CIEDE2000"
    yield "palette", "the same with noise of 2 %", noisy, "CIEDE2000"
    yield "palette", "painted with its colours and others", part, "CIEDE2000"


def _palette(images: Tensor, names: tuple[str, ...]) -> Tensor:
    spec = ControlSpec(
        name="c",
        prompts=PromptsSpec(train=("a house",)),
        visual_prompts={"brand": PalettePrompt(colors=names)},
        questions=(Question(name="q", question="Is it?", answer="Yes"),),
    )
    return Palette(PaletteMeasure(name="p", target="brand")).judge(Evidence(images, spec)).value


def _rgb(name: str) -> tuple[float, ...]:
    return tuple(int(name[index : index + 2], 16) / 255 for index in (1, 3, 5))


def statistics(pictures: Tensor) -> Iterator[Row]:
    """Photographs that were blurred, painted black and white, made grayer, and laid under a grid."""
    mirrored = torch.cat([pictures, pictures.flip(-1)], -1)  # so that a blur may wrap around
    mirrored = torch.cat([mirrored, mirrored.flip(-2)], -2)
    errors = []
    for sigma in (0.5, 1.0, 2.0):
        blurred, expected = _blurred(mirrored, sigma)
        errors += ((high_frequency(blurred) - expected) / expected).abs().tolist()
    yield "high-frequency", "blurred by 0.5, 1 and 2 pixels", errors, "its value"
    black = (0.1 + 0.8 * pictures).clone()
    black[..., : SIDE // 8] = 0
    black[..., -SIDE // 16 :, :] = 1
    share = 1 - (1 - 1 / 8) * (1 - 1 / 16)
    errors = (clipping(black) - share).abs().tolist()
    yield "clipping", "an eighth black, a sixteenth white", errors, "the picture"
    highest, lowest = pictures.amax(1, keepdim=True), pictures.amin(1, keepdim=True)
    own = ((highest - lowest) / highest.clamp(min=1e-6)).mean((1, 2, 3))
    grayer = highest - (highest - pictures) / 2  # halves the saturation of every pixel
    yield "saturation", "half as saturated", (saturation(grayer) - own / 2).abs().tolist(), "1"
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    missed = []
    for period in (4, 8, 16):
        lines = ((rows % period == 0) | (columns % period == 0)).float()
        gridded = (pictures + 0.04 * lines).clamp(0, 1)
        missed += (periodicity(pictures) >= periodicity(gridded)).float().tolist()
    yield "grid", "a grid of 4 % laid over, told from none", missed, "pictures, missed"


def _blurred(images: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Return pictures blurred by a Gaussian, and the energy of fine detail that their spectrum has left."""
    across, down = (2 * torch.pi * torch.fft.fftfreq(side) for side in (images.shape[-1], images.shape[-2]))
    squared = across.square() + down[:, None].square()
    spectrum = torch.fft.fft2(images) * torch.exp(-squared * sigma**2 / 2)
    laplacian = 4 - 2 * torch.cos(across) - 2 * torch.cos(down[:, None])
    energy = (spectrum * laplacian).abs().square().mean((1, 2, 3)) / spectrum.shape[-1] / spectrum.shape[-2]
    return torch.fft.ifft2(spectrum).real, energy.sqrt()


def line_weight(pictures: Tensor) -> Iterator[Row]:
    """Shapes outlined with a pen of known width, on paper and on photographs."""
    for side in (64, 128, 256, 512):
        errors = [abs(_width(_outlined(side, width)) - width) for width in WIDTHS]
        yield "line-weight", f"a drawing of {side} pixels", errors, "the height"
    rng = np.random.default_rng(0)
    noisy = [_outlined(SIDE, width) for width in WIDTHS]
    errors = [
        abs(_width((drawn + torch.from_numpy(rng.normal(0, 0.05, drawn.shape))).clamp(0, 1)) - width)
        for drawn, width in zip(noisy, WIDTHS, strict=True)
    ]
    yield "line-weight", "a drawing of 256 pixels, noise of 5 %", errors, "the height"
    errors = [
        abs(_width(_outlined(SIDE, width, photo.mean(0))) - width) for photo in pictures for width in WIDTHS
    ]
    yield "line-weight", "drawn over photographs", errors, "the height"


def _width(gray: Tensor) -> float:
    return float(line_widths(gray.float().expand(1, 3, -1, -1)))


def _outlined(side: int, width: float, ground: Tensor | None = None) -> Tensor:
    """Return a disc and a frame [side, side] with outlines that are ``width`` of the height thick."""
    finer = max(1024 // side, 1)
    y, x = np.mgrid[: side * finer, : side * finer] / (side * finer) - 0.5
    from_middle = np.hypot(x, y)
    frame = np.abs(np.maximum(abs(x), abs(y)) - 0.42) < width / 2
    ink = _smaller((np.abs(from_middle - 0.25) < width / 2) | frame, side)
    paper = _smaller(np.where(from_middle < 0.25, 0.6, 0.9), side) if ground is None else ground
    return torch.as_tensor(paper * (1 - ink) + 0.05 * ink)


def _smaller(picture: np.ndarray, side: int) -> Tensor:
    finer = len(picture) // side
    return torch.from_numpy(picture.reshape(side, finer, side, finer).mean((1, 3)))


if __name__ == "__main__":
    main()
