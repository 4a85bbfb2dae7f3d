"""The measures of a spec, which judge pictures without the VLM that the adapter was trained against.

A measure of type ``line-weight`` is implemented in ``dualproc_cli/measures/line_weight.py``.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from dualproc_cli.spec.fields import Name, SpecModel, number

# Measures of the miniature's pictures, which check its answers to the spec's questions.
MiniatureMeasure = Literal[
    "horizon", "palette", "line-weight", "depth", "composition", "attributes", "look", "content", "subject"
]
_NAME = "Name in reports; unique within the spec."


class DistanceMeasure(SpecModel):
    """How far a picture is from the base generator's of the same seed."""

    type: Literal["distance"] = Field(
        default="distance", description="Distance to the base generator's picture of the same seed."
    )
    name: Name = Field(description=_NAME)
    at_most: Annotated[float, number(ge=0, le=1)] | None = Field(
        default=None,
        description="Largest mean absolute difference of the pixels that is a success; null sets no goal.",
    )


class DiversityMeasure(SpecModel):
    """How much the pictures of a prompt vary from seed to seed."""

    type: Literal["diversity"] = Field(
        default="diversity", description="Spread of the pictures over the seeds of a prompt."
    )
    name: Name = Field(description=_NAME)


class PaletteMeasure(SpecModel):
    """How far a picture's colours are from those of a palette."""

    type: Literal["palette"] = Field(
        default="palette", description="Distance of the picture's colours to a palette's."
    )
    name: Name = Field(description=_NAME)
    target: Name = Field(description="Name of the visual prompt, of type palette, whose colours are wanted.")
    at_most: Annotated[float, number(ge=0, le=100)] = Field(
        default=10.0,
        description="Largest mean CIEDE2000 difference that is a success; 10 is clearly another shade.",
    )


class StatisticMeasure(SpecModel):
    """A statistic of the pixels, which can reveal pictures that only fool the VLM."""

    type: Literal["statistic"] = Field(
        default="statistic", description="A pixel statistic that can reveal pictures that only fool the VLM."
    )
    name: Name = Field(description=_NAME)
    of: Literal["high-frequency", "clipping", "saturation", "grid"] = Field(
        description="high-frequency: energy of fine detail; clipping: share of black and white values; "
        "saturation: mean saturation of the colours; grid: strength of a periodic pattern."
    )


MeasureSpec: TypeAlias = Annotated[
    DistanceMeasure | DiversityMeasure | PaletteMeasure | StatisticMeasure, Field(discriminator="type")
]
# The name of one of the miniature's measures, or a mapping.
AnyMeasure: TypeAlias = Annotated[
    Annotated[MiniatureMeasure, Tag("name")] | Annotated[MeasureSpec, Tag("mapping")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "mapping"),
]
