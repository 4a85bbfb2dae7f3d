"""The visual prompts of a spec, which are laid over a picture before the VLM sees it.

Positions and sizes are fractions of the picture, the origin at its top left.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from dualproc_cli.spec.fields import Color, Fraction, SpecModel, Text, number

Thickness: TypeAlias = Annotated[float, number(gt=0, le=0.5)]


class LinePrompt(SpecModel):
    """A straight line from edge to edge."""

    type: Literal["line"] = Field(default="line", description="A straight line from edge to edge.")
    orientation: Literal["horizontal", "vertical"] = Field(
        default="horizontal", description="Direction of the line."
    )
    position: Fraction = Field(
        description="Middle of the line: from the top if horizontal, from the left if vertical."
    )
    thickness: Thickness = Field(
        default=0.03,
        description="Thickness: a fraction of the height if horizontal, of the width if vertical.",
    )
    color: Color = Field(default="red", description="CSS colour name or hex.")


class PalettePrompt(SpecModel):
    """A strip of colour swatches along one edge."""

    type: Literal["palette"] = Field(
        default="palette", description="A strip of colour swatches along one edge."
    )
    colors: tuple[Color, ...] = Field(
        min_length=1,
        max_length=16,
        description="The swatches from left to right or top to bottom: CSS names or hex.",
    )
    edge: Literal["bottom", "top", "left", "right"] = Field(
        default="bottom", description="Where the strip lies."
    )
    size: Thickness = Field(
        default=0.12,
        description="Depth of the strip: a fraction of the height at top or bottom, of the width at a side.",
    )


class PointSpec(SpecModel):
    """One labelled point."""

    label: Annotated[Text, Field(max_length=8)] = Field(
        description="Letter or short word that a question can name."
    )
    x: Fraction = Field(description="From the left.")
    y: Fraction = Field(description="From the top.")


class PointsPrompt(SpecModel):
    """Labelled discs."""

    type: Literal["points"] = Field(default="points", description="Discs with a label inside.")
    points: tuple[PointSpec, ...] = Field(
        min_length=1, max_length=26, description="The points, each with a different label."
    )
    color: Color = Field(default="red", description="Colour of the discs: CSS name or hex.")


class BoxPrompt(SpecModel):
    """An empty rectangle."""

    type: Literal["box"] = Field(default="box", description="An empty rectangle.")
    left: Fraction = Field(description="Left edge.")
    top: Fraction = Field(description="Top edge.")
    right: Fraction = Field(description="Right edge, beyond the left one.")
    bottom: Fraction = Field(description="Bottom edge, below the top one.")
    color: Color = Field(default="red", description="CSS colour name or hex.")


class ImagePrompt(SpecModel):
    """A picture from a file."""

    type: Literal["image"] = Field(default="image", description="A picture from a file.")
    path: Text = Field(description="PNG, JPEG or WebP file, relative to the spec and inside its folder.")
    mode: Literal["solid", "transparent", "beside"] = Field(
        default="solid",
        description="solid: laid over, and only pure white (255, 255, 255) is transparent; "
        "transparent: laid over, blended by opacity; beside: given to the VLM as a second picture.",
    )
    opacity: Fraction = Field(default=0.5, description="Opacity in mode transparent.")


VisualPromptSpec: TypeAlias = Annotated[
    LinePrompt | PalettePrompt | PointsPrompt | BoxPrompt | ImagePrompt, Field(discriminator="type")
]
