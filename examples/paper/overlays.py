"""Draws the overlays of this folder's specs: `python examples/paper/overlays.py`.

White is transparent where an overlay is laid over as `solid`; as `transparent` it veils the picture by half.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = 512  # pixels
HORIZONS = {"low": 0.75, "middle": 0.5, "high": 0.25}  # of the height, from the top
LINES = {"thin": 2, "thick": 14}  # pixels
PALETTES = {
    "sunset": ("#2d1e2f", "#a23b72", "#f18f01", "#f6d55c"),
    "forest": ("#1b4332", "#40916c", "#95d5b2", "#d8f3dc"),
    "slate": ("#0b132b", "#1c2541", "#3a506b", "#5bc0be"),
}
POINTS = {  # A, B and C, as they lie from near to far
    "abc": ((0.25, 0.85), (0.5, 0.6), (0.75, 0.35)),
    "bca": ((0.75, 0.35), (0.25, 0.85), (0.5, 0.6)),
    "cab": ((0.5, 0.6), (0.75, 0.35), (0.25, 0.85)),
}
RED, YELLOW, BLUE = "#c8102e", "#f4c300", "#1f3a93"
MONDRIANS = {  # left, top, right and bottom in eighths, the color, and what is to be there
    "one": (
        (0, 0, 5, 5, RED, "house"),
        (5, 0, 8, 3, "white", "sky"),
        (5, 3, 8, 6, YELLOW, "sun"),
        (0, 5, 3, 8, "white", "field"),
        (3, 5, 5, 8, BLUE, "lake"),
        (5, 6, 8, 8, "white", "path"),
    ),
    "two": (
        (0, 0, 2, 4, BLUE, "sky"),
        (2, 0, 8, 2, "white", "clouds"),
        (2, 2, 6, 6, YELLOW, "boat"),
        (6, 2, 8, 8, RED, "tower"),
        (0, 4, 2, 8, "white", "rocks"),
        (2, 6, 6, 8, BLUE, "sea"),
    ),
}


def canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a white picture and what draws on it."""
    image = Image.new("RGB", (SIZE, SIZE), "white")
    return image, ImageDraw.Draw(image)


def horizon(position: float) -> Image.Image:
    """Return sky above a line and ground below it, in two grays with a red line between."""
    image, draw = canvas()
    at = round(position * SIZE)
    draw.rectangle((0, 0, SIZE, at), fill="#d9d9d9")
    draw.rectangle((0, at, SIZE, SIZE), fill="#7f7f7f")
    draw.rectangle((0, at - 3, SIZE, at + 3), fill=RED)
    return image


def line(thickness: int) -> Image.Image:
    """Return a circle and a zigzag, drawn with a pen of ``thickness`` pixels."""
    image, draw = canvas()
    draw.ellipse((24, 24, 120, 120), outline="black", width=thickness)
    draw.line(((136, 112), (176, 32), (216, 112), (256, 32)), fill="black", width=thickness, joint="curve")
    return image


def palette(colors: tuple[str, ...]) -> Image.Image:
    """Return a strip of colors along the lower edge."""
    image, draw = canvas()
    width = SIZE // len(colors)
    for index, color in enumerate(colors):
        draw.rectangle((index * width, SIZE - 64, (index + 1) * width - 1, SIZE), fill=color)
    return image


def points(places: tuple[tuple[float, float], ...]) -> Image.Image:
    """Return red discs with the letters A, B and C."""
    image, draw = canvas()
    for label, (x, y) in zip("ABC", places, strict=True):
        center = x * SIZE, y * SIZE
        draw.ellipse(
            (center[0] - 20, center[1] - 20, center[0] + 20, center[1] + 20),
            fill=RED,
            outline="black",
            width=2,
        )
        draw.text(center, label, fill="#fefefe", font=ImageFont.load_default(28), anchor="mm")
    return image


def mondrian(fields: tuple[tuple[int, int, int, int, str, str], ...]) -> Image.Image:
    """Return a composition of rectangles, each with the name of what is to be there."""
    image, draw = canvas()
    for left, top, right, bottom, color, name in fields:
        box = tuple(edge * SIZE // 8 for edge in (left, top, right, bottom))
        draw.rectangle(box, fill=color, outline="black", width=8)
        center = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        ink = "black" if color in ("white", YELLOW) else "#fefefe"
        draw.text(center, name, fill=ink, font=ImageFont.load_default(26), anchor="mm")
    return image


def overlays() -> dict[str, Image.Image]:
    """Return every overlay by its file's name."""
    groups = (
        ("horizon", horizon, HORIZONS),
        ("line", line, LINES),
        ("palette", palette, PALETTES),
        ("depth", points, POINTS),
        ("mondrian", mondrian, MONDRIANS),
    )
    return {
        f"{kind}-{name}.png": draw(value)  # type: ignore[operator]
        for kind, draw, values in groups
        for name, value in values.items()
    }


if __name__ == "__main__":
    for name, image in overlays().items():
        image.save(Path(__file__).with_name(name), optimize=True)
