"""The measures of a spec, which judge pictures without the VLM that the adapter was trained against.

A measure of type ``line-weight`` is implemented in ``dualproc_cli/measures/line_weight.py``.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from dualproc_cli.spec.fields import Fraction, Name, SpecModel, Text, number, whole

# Measures of the miniature's pictures, which check its answers to the spec's questions.
MiniatureMeasure = Literal[
    "horizon", "palette", "line-weight", "depth", "composition", "attributes", "look", "content", "subject"
]
_NAME = "Name in reports; unique within the spec."


_MODEL = "Hub id or folder of {}."
_REVISION = "Branch, tag or commit on the hub; null is the newest."
_QUESTIONS = "Names of the questions whose answers it checks; they count as judged by it."
Threshold: TypeAlias = Annotated[float, number(gt=0, lt=1)]


class DistanceMeasure(SpecModel):
    """How far a picture is from the base generator's of the same seed."""

    type: Literal["distance"] = Field(
        default="distance", description="Distance to the base generator's picture of the same seed."
    )
    name: Name = Field(description=_NAME)
    to: Literal["base"] = Field(default="base", description="What a picture is compared with.")
    model: Text | None = Field(
        default=None,
        description=_MODEL.format("a model of picture features, such as DINOv2") + " null compares pixels.",
    )
    revision: Text | None = Field(default=None, description=_REVISION)
    at_most: Annotated[float, number(ge=0, le=1)] | None = Field(
        default=None,
        description="Largest distance that is a success: mean absolute difference of the pixels, or "
        "1 - cosine of the features; null sets no goal.",
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


class ObjectsMeasure(SpecModel):
    """How many objects of a kind a picture shows."""

    type: Literal["objects"] = Field(
        default="objects", description="Number of objects that a zero-shot detector finds."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a zero-shot detector, such as OWLv2 or Grounding DINO"))
    revision: Text | None = Field(default=None, description=_REVISION)
    label: Text = Field(description="What to look for, such as a dog.")
    count: Annotated[int, whole(ge=0, le=100)] = Field(default=1, description="How many are wanted.")
    threshold: Threshold = Field(default=0.3, description="Smallest certainty of the detector that counts.")
    questions: tuple[Name, ...] = Field(default=(), description=_QUESTIONS)


class PlacementMeasure(SpecModel):
    """Whether an object is inside a box."""

    type: Literal["placement"] = Field(
        default="placement", description="Share of an object, as a zero-shot detector finds it, inside a box."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a zero-shot detector, such as OWLv2 or Grounding DINO"))
    revision: Text | None = Field(default=None, description=_REVISION)
    label: Text = Field(description="What to look for, such as a house.")
    target: Name = Field(description="Name of the visual prompt, of type box, that it should be in.")
    at_least: Annotated[float, number(gt=0, le=1)] = Field(
        default=0.8, description="Smallest share of its area inside the box that is a success."
    )
    threshold: Threshold = Field(default=0.3, description="Smallest certainty of the detector that counts.")


class DepthOrderMeasure(SpecModel):
    """Whether what is at some points comes in the wanted order, from near to far."""

    type: Literal["depth-order"] = Field(
        default="depth-order", description="Order of points by the depth that a model estimates."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a model that estimates depth, such as Depth Anything"))
    revision: Text | None = Field(default=None, description=_REVISION)
    points: Name = Field(description="Name of the visual prompt, of type points.")
    order: tuple[Annotated[Text, Field(max_length=8)], ...] | None = Field(
        default=None,
        min_length=2,
        max_length=26,
        description="Labels of the points, the nearest first; null is the order of the visual prompt.",
    )
    margin: Fraction = Field(
        default=0.05,
        description="How far a point has to be before the next, as a share of the picture's range of depth.",
    )
    nearer: Literal["auto", "larger", "smaller"] = Field(
        default="auto",
        description="Which of the model's numbers are nearer; auto goes by what the model is: larger for "
        "relative depth, smaller for distances.",
    )


class BoundaryMeasure(SpecModel):
    """Where the upper or lower boundary of something runs, such as the skyline."""

    type: Literal["boundary"] = Field(
        default="boundary", description="Distance of the boundary of a label to a line."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a model of semantic segmentation, such as SegFormer"))
    revision: Text | None = Field(default=None, description=_REVISION)
    label: Text = Field(description="One of the model's labels, such as sky.")
    edge: Literal["lower", "upper"] = Field(default="lower", description="Which of its boundaries.")
    target: Name = Field(description="Name of the visual prompt, a horizontal line, where it should be.")
    tolerance: Fraction = Field(
        default=0.05, description="Largest distance that is a success, as a fraction of the height."
    )


class LineWeightMeasure(SpecModel):
    """How far the width of a picture's outlines is from that of a line."""

    type: Literal["line-weight"] = Field(
        default="line-weight", description="Difference of the outlines' width to the thickness of a line."
    )
    name: Name = Field(description=_NAME)
    target: Name = Field(description="Name of the visual prompt, of type line, whose thickness is wanted.")
    tolerance: Fraction = Field(
        default=0.01, description="Largest difference that is a success, as a fraction of the height."
    )


class SimilarityMeasure(SpecModel):
    """How similar a picture is to its prompt, or to a text."""

    type: Literal["similarity"] = Field(
        default="similarity", description="Cosine of the embeddings of picture and text."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a model of CLIP's or SigLIP's shape"))
    revision: Text | None = Field(default=None, description=_REVISION)
    to: Text = Field(default="prompt", description="prompt: each picture's own prompt; or any other text.")
    at_least: Annotated[float, number(ge=-1, le=1)] | None = Field(
        default=None, description="Smallest cosine that is a success; null sets no goal."
    )


class PreferenceMeasure(SpecModel):
    """How much people would like a picture of its prompt."""

    type: Literal["preference"] = Field(
        default="preference", description="Score by a model of people's choices between pictures."
    )
    name: Name = Field(description=_NAME)
    model: Text = Field(description=_MODEL.format("a model of CLIP's shape, such as PickScore"))
    revision: Text | None = Field(default=None, description=_REVISION)
    processor: Text | None = Field(
        default=None, description="Hub id or folder of the model's processor, where it comes without one."
    )
    worse_by: Annotated[float, number(ge=0, le=100)] | None = Field(
        default=None,
        description="How far the base generator's picture may be ahead for a success; null sets no goal.",
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
    DistanceMeasure
    | DiversityMeasure
    | PaletteMeasure
    | StatisticMeasure
    | ObjectsMeasure
    | PlacementMeasure
    | DepthOrderMeasure
    | BoundaryMeasure
    | LineWeightMeasure
    | SimilarityMeasure
    | PreferenceMeasure,
    Field(discriminator="type"),
]
# The name of one of the miniature's measures, or a mapping.
AnyMeasure: TypeAlias = Annotated[
    Annotated[MiniatureMeasure, Tag("name")] | Annotated[MeasureSpec, Tag("mapping")],
    Discriminator(lambda value: "name" if isinstance(value, str) else "mapping"),
]
