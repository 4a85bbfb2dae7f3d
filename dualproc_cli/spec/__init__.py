"""Control specs, from YAML to a validated ``ControlSpec``. Imports no torch.

Usage::

    loaded = load_spec(Path("specs/horizon-position.yaml"), ["learn.steps=50"])
    loaded.spec.questions[0].answer   # "Yes"
    loaded.origins["learn.steps"]     # "--set"
"""

from dualproc_cli.spec.canonical import canonical, json_schema, spec_digest
from dualproc_cli.spec.control import (
    CLEAN,
    ControlSpec,
    EvaluateSpec,
    PromptsSpec,
    Question,
    RegionSpec,
    opposite_answer,
)
from dualproc_cli.spec.faults import Fault, Place, SpecError
from dualproc_cli.spec.fields import rgb
from dualproc_cli.spec.learn import (
    STEERED,
    AdapterSpec,
    GradientSpec,
    JitterSpec,
    KeepSpec,
    LearnSpec,
    SteerSpec,
    TeachSpec,
    Where,
)
from dualproc_cli.spec.load import LoadedSpec, load_spec
from dualproc_cli.spec.models import GeneratorSpec, VlmSpec
from dualproc_cli.spec.visual_prompts import (
    BoxPrompt,
    ImagePrompt,
    LinePrompt,
    PalettePrompt,
    PointSpec,
    PointsPrompt,
    VisualPromptSpec,
)

__all__ = [
    "CLEAN",
    "STEERED",
    "AdapterSpec",
    "BoxPrompt",
    "ControlSpec",
    "EvaluateSpec",
    "Fault",
    "GeneratorSpec",
    "GradientSpec",
    "ImagePrompt",
    "JitterSpec",
    "KeepSpec",
    "LearnSpec",
    "LinePrompt",
    "LoadedSpec",
    "PalettePrompt",
    "Place",
    "PointSpec",
    "PointsPrompt",
    "PromptsSpec",
    "Question",
    "RegionSpec",
    "SpecError",
    "SteerSpec",
    "TeachSpec",
    "VisualPromptSpec",
    "VlmSpec",
    "Where",
    "canonical",
    "json_schema",
    "load_spec",
    "opposite_answer",
    "rgb",
    "spec_digest",
]
