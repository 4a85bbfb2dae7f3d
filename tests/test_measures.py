"""The measures of any picture: on pictures with known answers, and how a spec names them."""

import importlib
import math
from functools import partial
from typing import get_args

import pytest
import torch
from scenes import make_scene
from skimage import data
from skimage.transform import resize
from sklearn.datasets import load_sample_image
from spec_files import SHORTEST, fault_lines, load_text

from dualproc_cli.measures import (
    Evidence,
    Measure,
    check_measures,
    measures_of,
    measures_of_evaluation,
    spread,
)
from dualproc_cli.measures.clusters import k_means
from dualproc_cli.measures.color import ciede2000, lab, lab_difference
from dualproc_cli.measures.distance import Distance
from dualproc_cli.measures.diversity import Diversity
from dualproc_cli.measures.line_weight import LineWeight, line_widths
from dualproc_cli.measures.palette import Palette
from dualproc_cli.measures.statistic import STATISTICS, clipping, high_frequency, periodicity, saturation
from dualproc_cli.miniature.world.render import render
from dualproc_cli.miniature.world.scene import Scene, sample_scenes
from dualproc_cli.spec import ControlSpec, LinePrompt, PalettePrompt, PromptsSpec, Question, SpecError, rgb
from dualproc_cli.spec.measures import (
    DistanceMeasure,
    DiversityMeasure,
    LineWeightMeasure,
    MeasureSpec,
    PaletteMeasure,
    StatisticMeasure,
)

ROWS, COLUMNS = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")


def control(**visual_prompts):
    return ControlSpec(
        name="c",
        prompts=PromptsSpec(train=("a house",)),
        visual_prompts=visual_prompts,
        questions=(Question(name="q", question="Is it?", answer="Yes"),),
    )


def gray(values):
    """Return pictures [N, 3, H, W] of gray values [H, W] or [N, H, W]."""
    values = values if values.dim() == 3 else values[None]
    return values[:, None].expand(-1, 3, -1, -1)


def flat(*levels):
    """Return a picture of 16 x 16 pixels for each level."""
    return torch.tensor(levels)[:, None, None, None].expand(-1, 3, 16, 16)


def wave(amplitude, across=0.0, down=0.0):
    """Return a cosine around middle gray, of that many periods per pixel."""
    return 0.5 + amplitude * torch.cos(2 * math.pi * (across * COLUMNS + down * ROWS))


def natural(count, side=128, seed=0):
    """Return pictures with the spectrum of photographs: amplitudes fall with frequency, phases are random."""
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side)).clamp(min=1 / side)
    noise = torch.randn(count, side, side, generator=torch.Generator().manual_seed(seed))
    images = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    return gray((0.5 + 0.15 * images / images.std()).clamp(0, 1))


# Distance and diversity


def test_distance_is_the_mean_absolute_difference():
    images, base = flat(0.5, 0.9), flat(0.4, 0.4)
    measure = Distance(DistanceMeasure(name="near", at_most=0.2))
    found = measure.judge(Evidence(images, control(), base))
    assert found.value.tolist() == pytest.approx([0.1, 0.5])
    assert found.success.tolist() == [1, 0]
    assert Distance(DistanceMeasure(name="near")).judge(Evidence(images, control(), base)).success is None


def test_distance_without_base_is_unjudged():
    found = Distance(DistanceMeasure(name="near", at_most=0.2)).judge(Evidence(flat(0.5), control()))
    assert found.value.isnan().all()
    assert found.success.isnan().all()


def test_diversity_is_the_spread_of_the_pixels():
    diversity = Diversity(DiversityMeasure(name="diversity"))
    varied = diversity.judge(Evidence(flat(0.1, 0.3, 0.5), control()))
    assert spread(varied.value) == pytest.approx(0.2)
    assert spread(diversity.judge(Evidence(flat(0.3, 0.3, 0.3), control())).value) == 0


# Palette


def palette_of(images, colors, at_most=10.0):
    measure = Palette(PaletteMeasure(name="brand", target="target", at_most=at_most))
    return measure.judge(Evidence(images, control(target=PalettePrompt(colors=colors))))


def test_palette_weighs_colours_by_their_area():
    images = torch.ones(3, 3, 64, 64)
    images[1, :, :16] = 0  # a quarter is black
    images[2] = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    found = palette_of(images, ("white",))
    blue = ciede2000(torch.tensor([0.0, 0, 1]), torch.ones(3)).item()
    assert found.value.tolist() == pytest.approx([0, 25, blue], abs=1e-3)
    assert found.success.tolist() == [1, 0, 0]
    assert palette_of(images, ("white", "black")).value.tolist()[:2] == pytest.approx([0, 0], abs=1e-3)


def test_palette_sees_through_shading():
    shaded = torch.tensor([0.8, 0.2, 0.2])[:, None, None] + 0.02 * torch.linspace(-1, 1, 64)[:, None]
    images = torch.stack([shaded, 1 - shaded]).expand(-1, -1, -1, 64)
    assert palette_of(images, ("#cc3333",)).success.tolist() == [1, 0]


def test_palette_of_a_picture_does_not_depend_on_its_batch():
    images = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    together = palette_of(images, ("red", "blue")).value
    alone = torch.cat([palette_of(image[None], ("red", "blue")).value for image in images])
    assert torch.equal(together, alone)


def test_large_pictures_are_looked_at_in_part():
    halves = torch.zeros(1, 3, 512, 256)
    halves[:, :, 256:] = 1
    assert palette_of(halves, ("white",)).value.item() == pytest.approx(50, abs=1e-3)


def test_k_means_finds_separate_clusters():
    rng = torch.Generator().manual_seed(1)
    middles = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    points = torch.cat(
        [middles[index] + 0.1 * torch.randn(30 * (index + 1), 2, generator=rng) for index in range(3)]
    )
    centres, shares = k_means(points, 3)
    order = torch.cdist(middles, centres).argmin(1)
    assert torch.allclose(centres[order], middles, atol=0.1)
    assert shares[order].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert torch.equal(k_means(points, 3)[0], centres)


def test_k_means_of_fewer_points_than_clusters():
    centres, shares = k_means(torch.tensor([[1.0, 2], [3, 4], [1, 2], [1, 2]]), 8)
    assert sorted(centres.tolist()) == [[1, 2], [3, 4]]
    assert sorted(shares.tolist()) == [0.25, 0.75]


# Line weight


def drawing(width, side=128, paper=0.9):
    """Return a disc and a frame, outlined with a pen that is ``width`` of the height thick: [1, 3, S, S]."""
    finer = 8
    y, x = (
        (torch.stack(torch.meshgrid(*[torch.arange(side * finer)] * 2, indexing="ij")) + 0.5) / finer / side
    )
    round_one = ((x - 0.5).hypot(y - 0.5) - 0.25).abs() < width / 2
    frame = (torch.maximum((x - 0.5).abs(), (y - 0.5).abs()) - 0.42).abs() < width / 2
    ink = torch.nn.functional.avg_pool2d((round_one | frame).float()[None], finer)
    return (paper * (1 - ink) + 0.05 * ink)[None].expand(1, 3, side, side)


@pytest.mark.parametrize(("width", "side"), [(0.03, 64), (0.05, 64), (0.01, 256), (0.05, 256), (0.08, 256)])
def test_line_weight_is_a_fraction_of_the_height(width, side):
    assert line_widths(drawing(width, side)).item() == pytest.approx(width, abs=0.004)


def test_line_weight_is_compared_with_a_line_of_either_orientation():
    images = torch.cat([drawing(0.03), drawing(0.06), torch.full((1, 3, 128, 128), 0.5)])
    wide = torch.nn.functional.pad(images, (64, 64, 0, 0), mode="replicate")
    measure = LineWeight(LineWeightMeasure(name="pen", target="pen", tolerance=0.01))
    for pictures, line in (
        (images, LinePrompt(position=0.5, thickness=0.06)),
        (wide, LinePrompt(position=0.5, thickness=0.03, orientation="vertical")),
    ):
        found = measure.judge(Evidence(pictures, control(pen=line)))
        assert found.value[:2].tolist() == pytest.approx([0.03, 0], abs=0.005)
        assert found.success[:2].tolist() == [0, 1]
        assert found.value[2].isnan()
        assert found.success[2].isnan()
    thick = measure.refuses(control(pen=LinePrompt(position=0.5, thickness=0.2)))
    assert (thick.problem, thick.key) == ('"pen" is 0.2 of the height thick', "target")


def test_areas_are_not_lines():
    halves = torch.ones(1, 3, 128, 128)
    halves[..., 64:] = 0
    assert line_widths(halves).isnan().all()


# Photographs


@pytest.fixture(scope="module")
def photographs():
    """Two photographs of 128 x 128 pixels that come with scikit-image and scikit-learn."""
    pictures = (data.astronaut(), load_sample_image("china.jpg")[:, 100:527])
    small = [resize(picture, (128, 128), anti_aliasing=True) for picture in pictures]
    return torch.stack([torch.from_numpy(picture).float().movedim(-1, 0) for picture in small])


def test_the_palette_of_a_painted_photograph(photographs):
    names = ("#1b3a4b", "#f2e8cf", "#bc4749")
    colors = torch.tensor([rgb(name) for name in names])
    nearest = lab_difference(lab(photographs.movedim(1, -1))[..., None, :], lab(colors)).argmin(-1)
    painted = colors[nearest].movedim(-1, 1)
    assert palette_of(painted, names).value.max() < 0.01
    share = (nearest == 2).float().mean((1, 2))
    missing = ciede2000(colors[2], colors[:2]).min()
    assert palette_of(painted, names[:2]).value.tolist() == pytest.approx(
        (share * missing).tolist(), abs=0.05
    )
    assert palette_of(photographs, names).value.min() > 5


def test_statistics_of_photographs(photographs):
    highest, lowest = photographs.amax(1, keepdim=True), photographs.amin(1, keepdim=True)
    own = ((highest - lowest) / highest.clamp(min=1e-6)).mean((1, 2, 3))
    grayer = highest - (highest - photographs) / 2
    assert saturation(grayer).tolist() == pytest.approx((own / 2).tolist(), abs=1e-4)
    framed = 0.1 + 0.8 * photographs
    framed[..., :32] = 0
    assert clipping(framed).tolist() == [0.25, 0.25]
    blurred = torch.nn.functional.avg_pool2d(photographs, 3, stride=1, padding=1)
    assert (high_frequency(blurred) < 0.6 * high_frequency(photographs)).all()
    lines = ((ROWS % 8 == 0) | (COLUMNS % 8 == 0)).float()
    assert (periodicity(photographs + 0.04 * lines) > 1.2 * periodicity(photographs)).all()


# Statistics


@pytest.mark.parametrize(("across", "down"), [(0.25, 0), (0, 0.125), (0.25, 0.375), (1 / 16, 0)])
def test_high_frequency_of_a_wave(across, down):
    gain = 4 - 2 * math.cos(2 * math.pi * across) - 2 * math.cos(2 * math.pi * down)
    found = high_frequency(gray(wave(0.1, across, down))[..., 1:-1, 1:-1]).item()
    assert found == pytest.approx(0.1 * gain / math.sqrt(2), rel=0.02)


def test_high_frequency_of_a_checkerboard_and_of_none():
    board = 0.5 + 0.05 * (1 - 2 * ((ROWS + COLUMNS) % 2))
    ramp = 0.2 + 0.004 * ROWS
    assert high_frequency(gray(torch.stack([board, ramp]))).tolist() == pytest.approx([0.4, 0], abs=1e-5)


def test_clipping_counts_values():
    halves = torch.full((1, 3, 16, 16), 0.5)
    halves[..., :8] = 0
    red = torch.tensor([1.0, 0.5, 0.5])[None, :, None, None].expand(1, 3, 16, 16)
    levels = torch.tensor([0, 1, 2, 3, 252, 253, 254, 255]) / 255
    assert clipping(halves).item() == pytest.approx(0.5)
    assert clipping(red).item() == pytest.approx(1 / 3)
    assert clipping(gray(levels.expand(8, 8))).item() == 0.5


def test_saturation_of_colours():
    colors = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [1, 0.5, 0.5], [0, 0, 0], [0.2, 0.1, 0.15]])
    images = colors[:, :, None, None].expand(-1, -1, 8, 8)
    assert saturation(images).tolist() == pytest.approx([1, 0, 0.5, 0, 0.5])


@pytest.mark.parametrize(("across", "down"), [(0.25, 0.0), (0.0, 0.5), (0.125, 0.25), (0.375, 0.3125)])
def test_grid_of_a_wave_in_noise(across, down):
    noise = 0.02 * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    hann = torch.hann_window(128)
    window = hann[:, None] * hann
    for amplitude in (0.05, 0.1):
        # Where noise is drawn at random, the geometric mean of its power is exp(-0.5772) of the mean.
        peak = amplitude * window.sum() / (1 if down == 0.5 and across == 0 else 2)
        floor = (0.02**2 * window.square().sum() * math.exp(-0.5772)).sqrt()
        found = periodicity(gray(wave(amplitude, across, down) + noise)).item()
        assert found == pytest.approx((peak / floor).item(), rel=0.35)


def test_grid_is_low_where_nothing_repeats():
    noise = 0.5 + 0.1 * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
    edge = torch.where(ROWS < 70, 0.8, 0.3)
    stripe = edge + 0.3 * (COLUMNS > 40)
    assert 3 < periodicity(gray(noise)).item() < 6
    assert periodicity(gray(torch.full((128, 128), 0.4))).item() == pytest.approx(1)
    assert periodicity(gray(torch.stack([edge, stripe]))).max() < 5
    assert periodicity(natural(8)).max() < 8
    assert periodicity(render(sample_scenes(16, torch.Generator().manual_seed(0))).images).max() < 8


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_grid_shows_a_faint_grid_in_a_photograph(period):
    lines = ((ROWS % period == 0) | (COLUMNS % period == 0)).float()
    images = natural(4)
    assert (periodicity(images + 0.04 * lines) / periodicity(images)).min() > 1.25


def test_statistics_tell_an_attack_from_a_picture():
    """A checkerboard and clipped colours over the miniature's pictures, as adapters exploit a VLM."""
    images = render(Scene.concatenate([make_scene("house"), make_scene("ball", "tree")])).images
    board = 1 - 2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    attacked = (1.6 * (images - 0.5) + 0.5 + 0.08 * board).clamp(0, 1)
    for function, _ in STATISTICS.values():
        assert (function(attacked) > function(images)).all(), function.__name__


# The table


def test_every_type_of_the_language_has_its_class():
    for parameters in get_args(get_args(MeasureSpec)[0]):
        kind = parameters.model_fields["type"].default
        module = importlib.import_module(f"dualproc_cli.measures.{kind.replace('-', '_')}")
        assert issubclass(getattr(module, kind.title().replace("-", "")), Measure)
    assert set(get_args(StatisticMeasure.model_fields["of"].annotation)) == set(STATISTICS)


MEASURES = """\
evaluate:
  measures:
    - {type: distance, name: near, at_most: 0.1}
    - {type: palette, name: brand, target: colors}
    - horizon
    - {type: statistic, name: clipping, of: clipping}
"""
MINIATURE = SHORTEST.replace("target:", "colors: {type: palette, colors: [red]}\n  target:", 1)


def test_measures_of_a_spec(tmp_path):
    spec = load_text(tmp_path, MINIATURE + MEASURES).spec
    named = measures_of(spec)
    assert all(isinstance(measure, Measure) for measure in named)
    assert [measure.name for measure in named[:4]] == ["near", "brand", "horizon", "clipping"]
    roles = {role: [m.name for m in named if m.role == role] for role in ("goal", "artefact", "variety")}
    assert roles["goal"] == ["near", "brand", "horizon"]
    assert roles["artefact"] == ["clipping", "residual", "texture"]
    assert roles["variety"][:2] == ["horizon", "sky"]
    added = measures_of_evaluation(spec)[len(named) :]
    assert [measure.name for measure in added] == [
        "distance", "diversity", "high-frequency", "saturation", "grid"
    ]  # fmt: skip
    judges = {(measure.model, measure.licence) for measure in named}
    assert judges == {(None, None), ("the miniature's reader", "Apache-2.0")}


def test_every_evaluation_measures_something():
    names = [measure.name for measure in measures_of_evaluation(control())]
    assert names == ["distance", "diversity", "high-frequency", "clipping", "saturation", "grid"]
    assert measures_of(control()) == []


def test_refusals_have_their_line(tmp_path):
    text = MINIATURE.replace("name: horizon-low", "name: horizon-low\ngenerator: {model: org/other}")
    text += MEASURES.replace("target: colors", "target: target")
    text += "    - {type: palette, name: other, target: colour}\n"
    with pytest.raises(SpecError) as caught:
        check_measures(load_text(tmp_path, text))
    assert str(caught.value).replace(f"{tmp_path}/", "").splitlines() == [
        'spec.yaml:16:44: evaluate.measures.1.target: "target" is of type line (expected a visual prompt of '
        "type palette: colors)",
        "spec.yaml:17:7: evaluate.measures.2: horizon reads the miniature's pictures, not those of "
        '"org/other" (expected a measure of any picture, such as {type: distance, name: near-base, '
        "at_most: 0.1})",
        "spec.yaml:19:44: evaluate.measures.4.target: no visual prompt \"colour\"; did you mean 'colors'? "
        "(expected a visual prompt of type palette: colors)",
    ]
    setting = "evaluate.measures=[depth]"
    with pytest.raises(
        SpecError, match=rf"^--set {setting[:17]}.*: evaluate.measures.0: depth has no question"
    ):
        check_measures(load_text(tmp_path, SHORTEST, setting))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            "{type: palet, name: a}",
            ".type: is \"palet\"; did you mean 'palette'? (expected one of boundary, depth-order, ",
        ),
        ("{name: a}", ".type: is missing (expected one of boundary, depth-order, distance, "),
        ("{type: distance}", ".name: is missing (expected name in reports"),
        ("{type: distance, name: a, at_mots: 1}", ".at_mots: unknown key; did you mean 'at_most'?"),
        ("{type: distance, name: a, at_most: 2}", ".at_most: is 2 (expected at most 1"),
        ("{type: palette, name: a}", ".target: is missing (expected name of the visual prompt"),
        ("{type: statistic, name: a, of: noise}", '.of: is "noise" (expected one of high-frequency, '),
        ("5", ": is 5 (expected "),
        ("distance", ': is "distance" (expected one of horizon, '),
    ],
)
def test_faults_of_a_measure(tmp_path, entry, fault):
    faults = partial(fault_lines, tmp_path)
    (line,) = faults(SHORTEST + f"evaluate:\n  measures:\n    - horizon\n    - {entry}\n")
    assert line.startswith("spec.yaml:14:")
    assert f": evaluate.measures.1{fault}" in line


def test_names_of_measures_differ(tmp_path):
    measures = "evaluate: {measures: [horizon, {type: distance, name: horizon}]}\n"
    (line,) = fault_lines(tmp_path, SHORTEST + measures)
    assert line.startswith('spec.yaml:11:55: evaluate.measures.1.name: "horizon" is given twice')
