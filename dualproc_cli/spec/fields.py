"""The base model and the constrained types of a control spec's keys."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

NAME = "^[a-z0-9][a-z0-9-]*$"
SOME_TEXT = r"\S"
COLOR = "^(#[0-9a-fA-F]{3}|#[0-9a-fA-F]{6}|[a-zA-Z]+)$"
DEVICE = r"^(cpu|mps|cuda(:\d{1,3})?)$"
MAX_TEXT = 4000  # characters

EXPECTED_OF_PATTERN = {
    NAME: "lower-case letters, digits and hyphens, such as horizon-low",
    SOME_TEXT: "some text",
    DEVICE: "cpu, cuda, cuda:1 or mps",
    COLOR: 'a CSS colour name, or hex in quotes such as "#bc4749"',
}


class SpecModel(BaseModel):
    """A part of a spec: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _no_negative_zero(cls, value: Any) -> Any:
        # -0.0 equals 0.0 but prints differently, which would give equal specs two digests.
        return value + 0.0 if isinstance(value, float) else value


def number(**limits: Any) -> Any:
    """Constrain a number: finite, within ``limits`` (ge, gt, le, lt), not written as text."""
    return Field(strict=True, allow_inf_nan=False, **limits)


def whole(**limits: Any) -> Any:
    """Constrain an integer to ``limits`` (ge, gt, le, lt, multiple_of); 4.0 and true are refused."""
    return Field(strict=True, **limits)


def not_a_truth_value(value: Any) -> Any:
    """Return ``value``; refuse true, which equals 1 in Python."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a whole number")
    return value


def rgb(color: str) -> tuple[float, float, float]:
    """Return the red, green and blue, in [0, 1], of a CSS colour name, ``#rgb`` or ``#rrggbb``.

    Raises:
        ValueError: ``color`` is not a colour.
    """
    from PIL import ImageColor  # imported here: a spec without colours does not need Pillow

    red, green, blue = ImageColor.getrgb(color)[:3]
    return red / 255, green / 255, blue / 255


def _known_color(color: str) -> str:
    try:
        rgb(color)
    except ValueError as error:
        raise PydanticCustomError(
            "color", "Input should be {what}", {"what": EXPECTED_OF_PATTERN[COLOR]}
        ) from error
    return color


Text = Annotated[str, Field(pattern=SOME_TEXT, max_length=MAX_TEXT)]
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Device = Annotated[str, Field(pattern=DEVICE)]
Color = Annotated[str, Field(pattern=COLOR), AfterValidator(_known_color)]
Flag = Annotated[bool, Field(strict=True)]
Fraction = Annotated[float, number(ge=0, le=1)]  # of the picture's width or height
Side = Annotated[int, whole(ge=8, le=4096, multiple_of=8)]  # pixels

# Answers are taken as written: to YAML 12 is a number, but its author means "12". Editors that read YAML 1.1
# take Yes for a boolean.
Answer = Annotated[
    Text,
    WithJsonSchema({"type": ["string", "boolean", "number"], "pattern": SOME_TEXT, "maxLength": MAX_TEXT}),
]

# Either the word auto or a list of names: `Annotated[Auto | Annotated[NAMES, Tag("names")], AUTO_OR_NAMES]`.
Auto = Annotated[Literal["auto"], Tag("auto")]
AUTO_OR_NAMES = Discriminator(lambda value: "auto" if isinstance(value, str) else "names")

# Either one of a few words or a number: `Annotated[Annotated[Literal[...], Tag("word")] | Annotated[NUMBER,
# Tag("number")], WORD_OR_NUMBER]`.
WORD_OR_NUMBER = Discriminator(lambda value: "word" if isinstance(value, str) else "number")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Input should be a finite number")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in inner:
        _finite(item)
    return value


# Options of a part that is not the project's own: what JSON can hold, checked by that part when it is made.
Options = dict[
    Annotated[str, Field(pattern=SOME_TEXT, max_length=64)], Annotated[Any, AfterValidator(_finite)]
]

PRESET = " If left out, the model's preset applies."  # ends descriptions
