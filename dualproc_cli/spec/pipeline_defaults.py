"""The defaults of a diffusers pipeline's ``__call__``, read from its source: importing it takes seconds."""

import ast
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dualproc_cli.spec.model_facts import Facts

# What diffusers calls a generator's setting; the first one with a number counts.
NAMES = {
    "steps": ("num_inference_steps",),
    "guidance_scale": ("guidance_scale", "true_cfg_scale", "distilled_guidance_scale"),
    "width": ("width",),
    "height": ("height",),
}
LARGEST = 4096  # pixels


def pipeline_defaults(facts: Facts) -> dict[str, int | float]:
    """Return the values of ``generator`` with which the pipeline draws where a user names none.

    Args:
        facts: of the generator, see `dualproc_cli.spec.model_facts`.
    """
    node = _class(str(facts.get("pipeline")))
    call = _method(node, "__call__")
    if node is None or call is None:
        return {}
    given = dict(
        zip(reversed([one.arg for one in call.args.args]), reversed(call.args.defaults), strict=False)
    )
    found: dict[str, int | float] = {}
    for key, names in NAMES.items():
        values = [given[name].value for name in names if isinstance(given.get(name), ast.Constant)]  # type: ignore[attr-defined]
        number = next((value for value in values if isinstance(value, int | float)), None)
        if number is not None:
            found[key] = int(number) if key != "guidance_scale" else float(number)
    size = _size(node, facts)
    return {"width": size, "height": size, **found} if size else found


def _size(node: ast.ClassDef, facts: Facts) -> int | None:
    """Return the side in pixels that a pipeline takes where its call leaves it open, if that can be known.

    It is what its denoiser was trained at, or a number in the pipeline's source, both in latents.
    """
    trained = facts.get("unet.sample_size") or facts.get("transformer.sample_size")
    assigned = [one for one in ast.walk(node) if isinstance(one, ast.Assign)]
    constants = [
        part.value
        for one in assigned
        if isinstance(one.targets[0], ast.Attribute) and one.targets[0].attr == "default_sample_size"
        for part in ast.walk(one.value)
        if isinstance(part, ast.Constant) and isinstance(part.value, int) and part.value > 1
    ]
    pixels = [
        one.value.values[-1].value
        for one in assigned
        if isinstance(one.targets[0], ast.Name) and one.targets[0].id == "height"
        if isinstance(one.value, ast.BoolOp) and isinstance(one.value.values[-1], ast.Constant)
    ]
    latents = trained if isinstance(trained, int) else constants[0] if constants else None
    size = latents * _factor(facts) if latents else pixels[0] if pixels else None
    return size if isinstance(size, int) and 8 <= size <= LARGEST and size % 8 == 0 else None


def _factor(facts: Facts) -> int:
    """Return how many pixels a latent is wide."""
    blocks = facts.get("vae.block_out_channels") or facts.get("vae.encoder_block_out_channels")
    return 2 ** (len(blocks) - 1) if isinstance(blocks, list) and 1 < len(blocks) < 8 else 8


def _method(node: ast.ClassDef | None, name: str) -> ast.FunctionDef | None:
    body = node.body if node else []
    return next((one for one in body if isinstance(one, ast.FunctionDef) and one.name == name), None)


@cache
def _class(name: str) -> ast.ClassDef | None:
    """Return the definition of a pipeline's class in the installed diffusers, or None."""
    found = find_spec("diffusers")
    if found is None or not found.submodule_search_locations or not name.isidentifier():
        return None
    pattern = re.compile(rf"^class {name}\(", re.MULTILINE)
    likely = f"pipeline_{name.removesuffix('Pipeline').lower()}"  # the others are searched too
    files = (Path(found.submodule_search_locations[0]) / "pipelines").rglob("pipeline_*.py")
    for file in sorted(files, key=lambda file: (file.stem.replace("_", "") != likely.replace("_", ""), file)):
        text = file.read_text("utf-8")
        if pattern.search(text):
            body = ast.parse(text).body
            return next(one for one in body if isinstance(one, ast.ClassDef) and one.name == name)
    return None
