"""Visual prompts: what is drawn where, exactly, and what a picture and its gradient become under them."""

import pytest
import torch
from PIL import Image

from dualproc_cli.errors import UserError
from dualproc_cli.picture_files import load_picture
from dualproc_cli.spec import BoxPrompt, ImagePrompt, LinePrompt, PalettePrompt, PointSpec, PointsPrompt, rgb
from dualproc_cli.visual_prompt import composite, draw_layer, layers

RED, WHITE = torch.tensor([1.0, 0.0, 0.0]), torch.ones(3)
SIZES = [(64, 64), (512, 512), (48, 80)]


def drawn(prompt, height=64, width=64, folder=None):
    layer = draw_layer(prompt, height, width, folder)
    assert layer.shape == (4, height, width)
    assert layer.min() >= 0
    assert layer.max() <= 1
    return layer


def centroid(alpha):
    """(row, column) in pixels from the top left corner."""
    rows = (alpha.sum(1) * (torch.arange(alpha.shape[0]) + 0.5)).sum() / alpha.sum()
    columns = (alpha.sum(0) * (torch.arange(alpha.shape[1]) + 0.5)).sum() / alpha.sum()
    return float(rows), float(columns)


# Lines


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("position", [0.2, 0.5, 0.6543])
@pytest.mark.parametrize("thickness", [0.004, 0.03, 0.3])  # thinner than a pixel of 64, a few, many
def test_line_covers_its_area_at_its_place(height, width, position, thickness):
    layer = drawn(LinePrompt(position=position, thickness=thickness, color="#336699"), height, width)
    assert layer[3].sum() == pytest.approx(thickness * height * width, rel=1e-4)
    # A line thinner than a pixel colours it evenly.
    assert centroid(layer[3]) == pytest.approx((position * height, width / 2), abs=0.5)
    assert torch.equal(layer[3], layer[3, :, :1].expand(height, width)), "the same in every column"
    assert torch.equal(layer[:3, 0, 0], torch.tensor(rgb("#336699")))


def test_line_is_soft_only_at_its_edges():
    alpha = drawn(LinePrompt(position=0.5, thickness=3.5 / 64))[3, :, 0]
    assert alpha[29:35].tolist() == pytest.approx([0, 0.75, 1, 1, 0.75, 0])


def test_half_a_line_at_the_border():
    assert drawn(LinePrompt(position=0, thickness=4 / 64))[3].sum() == 2 * 64


def test_vertical_line_is_the_horizontal_one_turned():
    upright = drawn(LinePrompt(position=0.3, orientation="vertical"), 48, 80)
    assert torch.equal(upright, drawn(LinePrompt(position=0.3), 80, 48).transpose(1, 2))


# Boxes


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_box_as_large_as_the_picture_is_seen_on_all_sides(height, width):
    alpha = drawn(BoxPrompt(left=0, top=0, right=1, bottom=1), height, width)[3]
    for border in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
        assert border.min() > 0.99
    assert alpha[height // 4 : -height // 4, width // 4 : -width // 4].max() == 0, "it is empty"


def test_box_stroke_lies_inside_its_edges():
    layer = drawn(BoxPrompt(left=0.25, top=0.5, right=0.75, bottom=1, color="blue"))
    rows, columns = layer[3].nonzero().unbind(1)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (16, 47, 32, 63)
    pen = layers.BOX_STROKE * 64
    assert layer[3, 48, :32].sum() == pytest.approx(pen, abs=1e-3)
    assert torch.equal(layer[:3, 48, 16], torch.tensor([0.0, 0.0, 1.0]))


# Points


@pytest.mark.parametrize("side", [64, 512])
def test_point_is_a_disc_with_a_white_label(side):
    layer = drawn(PointsPrompt(points=(PointSpec(label="A", x=0.25, y=0.5),)), side, side)
    radius = layers.POINT_RADIUS * side
    assert float(layer[3].sum()) == pytest.approx(torch.pi * radius**2, rel=0.05)
    assert centroid(layer[3]) == pytest.approx((side / 2, side / 4), abs=0.05 * radius)
    opaque = layer[:3, layer[3] == 1]
    white = (opaque == 1).all(0).float().mean()
    assert 0.05 < white < 0.4, "the letter takes a part of the disc"
    assert (opaque == RED[:, None]).all(0).float().mean() > 0.2


def test_labels_differ():
    first, second = (drawn(PointsPrompt(points=(PointSpec(label=label, x=0.5, y=0.5),))) for label in "AB")
    assert (first[:3] - second[:3]).abs().amax(0).gt(0.5).sum() > 10


def test_later_point_hides_the_earlier_one():
    points = (PointSpec(label="A", x=0.5, y=0.5), PointSpec(label="B", x=0.55, y=0.5))
    both, later = drawn(PointsPrompt(points=points)), drawn(PointsPrompt(points=points[1:]))
    inside = (slice(None), slice(30, 35), slice(33, 38))  # of the later disc
    assert later[3][inside[1:]].min() == 1
    assert torch.allclose(both[inside], later[inside], atol=1e-6)
    earlier = drawn(PointsPrompt(points=points[:1]))
    assert torch.equal(both[:, :, :29], earlier[:, :, :29]), "what is left of the earlier one stays"


def test_point_beyond_the_border_is_cut():
    whole = drawn(PointsPrompt(points=(PointSpec(label="A", x=0.5, y=0.5),)))
    corner = drawn(PointsPrompt(points=(PointSpec(label="A", x=0, y=0),)))
    assert torch.equal(corner[:, :32, :32], whole[:, 32:, 32:])


# Palettes

COLORS = ("#1b3a4b", "white", "#bc4749")


@pytest.mark.parametrize("edge", ["bottom", "top", "left", "right"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_palette_strip(edge, height, width):
    layer = drawn(PalettePrompt(colors=COLORS, edge=edge, size=0.125), height, width)
    # Turned so that the strip lies at the bottom, its first color on the left.
    layer = {
        "bottom": layer,
        "top": layer.flip(1),
        "left": layer.transpose(1, 2).flip(1),
        "right": layer.transpose(1, 2),
    }[edge]
    across, along = layer.shape[1:]
    depth = round(across / 8)
    assert torch.equal(layer[3, : across - depth], torch.zeros(across - depth, along))
    assert torch.equal(layer[3, across - depth :], torch.ones(depth, along))
    assert torch.equal(layer[:3, across - depth, :], WHITE[:, None].expand(3, along)), "the rule"
    for index, color in enumerate(COLORS):
        middle = (2 * index + 1) * along // (2 * len(COLORS))
        assert torch.equal(layer[:3, -1, middle], torch.tensor(rgb(color)))


def test_palette_colors_have_equal_shares():
    strip = drawn(PalettePrompt(colors=("red", "lime", "blue", "black"), size=0.125))[:3, -1]
    shares = [(strip == torch.tensor(rgb(color))[:, None]).all(0).sum() for color in ("red", "lime", "blue")]
    assert shares == [16, 16, 16]


# Pictures


@pytest.fixture
def folder(tmp_path):
    """A folder with a green square on white, and the same square on nothing."""
    image = Image.new("RGB", (48, 48), "white")
    image.paste((0, 128, 0), (12, 12, 36, 36))
    image.save(tmp_path / "white.png")
    image = Image.new("RGBA", (48, 48), (0, 0, 0, 0))
    image.paste((0, 128, 0, 255), (12, 12, 36, 36))
    image.save(tmp_path / "nothing.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


GREEN = torch.tensor([0.0, 128 / 255, 0.0])


@pytest.mark.parametrize("path", ["white.png", "nothing.png"])
@pytest.mark.parametrize("side", [24, 64, 100])  # made smaller, larger, and by no whole factor
def test_solid_picture_has_no_white_and_no_fringe(folder, path, side):
    layer = drawn(ImagePrompt(path=path, mode="solid"), side, side, folder)
    assert layer[3, 0, 0] < 0.05
    assert layer[3, side // 2, side // 2] == 1
    assert layer[3].mean() == pytest.approx(0.25, abs=0.01)
    seen = layer[:3, layer[3] > 0]
    assert torch.allclose(seen, GREEN[:, None].expand_as(seen), atol=1e-5)


def test_transparent_picture_is_blended_evenly(folder):
    layer = drawn(ImagePrompt(path="white.png", mode="transparent", opacity=0.25), 64, 64, folder)
    assert torch.equal(layer[3], torch.full((64, 64), 0.25))
    assert torch.allclose(layer[:3, 0, 0], WHITE)
    assert torch.allclose(layer[:3, 32, 32], GREEN)


def test_only_white_is_transparent_in_a_solid_picture(tmp_path):
    image = Image.new("RGB", (8, 8), "white")
    image.paste("#fdfbf0", (0, 0, 4, 8))  # cream
    image.putpixel((7, 7), (255, 255, 254))
    image.save(tmp_path / "cream.png")
    layer = drawn(ImagePrompt(path="cream.png", mode="solid"), 8, 8, tmp_path)
    expected = torch.zeros(8, 8)
    expected[:, :4] = expected[7, 7] = 1
    assert torch.equal(layer[3], expected)
    assert torch.allclose(layer[:3, 0, 0], torch.tensor(rgb("#fdfbf0")))


@pytest.mark.parametrize("mode", ["solid", "transparent"])
def test_picture_is_drawn_upright(tmp_path, mode):
    image = Image.new("RGB", (16, 8), "red")
    image.paste("blue", (8, 0, 16, 8))
    image.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: a quarter turn clockwise makes it upright
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    upright, turned = (
        drawn(ImagePrompt(path=path, mode=mode), 8, 16, tmp_path) for path in ("upright.png", "turned.png")
    )
    assert torch.equal(turned, upright)


@pytest.mark.parametrize("path", ["white.png", "nothing.png"])
def test_picture_beside_keeps_its_size_and_is_white_where_transparent(folder, path):
    beside = load_picture(folder / path)
    wanted = torch.ones(3, 48, 48)
    wanted[:, 12:36, 12:36] = GREEN[:, None, None]
    assert torch.equal(beside, wanted)


@pytest.mark.parametrize(
    ("path", "problem"),
    [("broken.png", "is not a picture of a known format"), ("missing.png", "no such file")],
)
def test_unreadable_picture(folder, path, problem):
    with pytest.raises(UserError, match=rf"{path}: {problem} \(expected a readable PNG"):
        draw_layer(ImagePrompt(path=path), 64, 64, folder)


# Laying over


@pytest.mark.parametrize(
    "prompt",
    [
        LinePrompt(position=0.33, thickness=0.05),
        PointsPrompt(points=(PointSpec(label="A", x=0.3, y=0.4),)),
        PalettePrompt(colors=COLORS),
        ImagePrompt(path="white.png", mode="transparent", opacity=0.3),
    ],
    ids=lambda prompt: prompt.type,
)
def test_gradient_is_exactly_the_transparency(prompt, folder):
    layer = drawn(prompt, folder=folder)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = composite(images, layer)
    (gradient,) = torch.autograd.grad(out.sum(), images)
    assert torch.equal(gradient, (1 - layer[3]).expand_as(images))
    clear, opaque = layer[3] == 0, layer[3] == 1
    assert torch.equal(out[..., clear], images[..., clear])
    assert torch.equal(out[..., opaque], layer[:3, opaque].expand(2, -1, -1))
    assert torch.allclose(out, (1 - layer[3]) * images + layer[3] * layer[:3], atol=1e-6)


def test_composite_keeps_the_pictures_precision():
    images = torch.rand(1, 3, 64, 64).bfloat16()
    assert composite(images, drawn(LinePrompt(position=0.5))).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make",
    [
        lambda u: layers.line(u[:, 0], u[:, 1] / 5, u[:, :3], True, 48, 80),
        lambda u: layers.line(u[:, 0], u[:, 1] / 5, u[:, :3], False, 48, 80),
        lambda u: layers.box_outline(torch.cat([u[:, :2] / 2, 0.5 + u[:, 2:4] / 2], 1), u[:, :3], 48, 80),
        lambda u: layers.points(u[:, :4].view(-1, 2, 2), ("A", "B"), u[:, 2:5], 48, 80),
        lambda u: layers.palette(u[:, :9].view(-1, 3, 3), "left", 0.2, 48, 80),
    ],
    ids=["horizontal", "vertical", "box", "points", "palette"],
)
def test_layers_of_a_batch_are_those_of_its_members(make):
    numbers = torch.rand(4, 9, generator=torch.Generator().manual_seed(0))
    batch = make(numbers)
    assert batch.shape == (4, 4, 48, 80)
    for index in range(4):
        assert torch.equal(batch[index : index + 1], make(numbers[index : index + 1]))
