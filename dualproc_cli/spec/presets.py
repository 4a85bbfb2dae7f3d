"""Defaults that depend on the models, from ``presets.yaml``: they go by what a model is, not by its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dualproc_cli.spec.faults import Fault, KeyPath, Place
from dualproc_cli.spec.model_facts import Facts, generator_facts, vlm_facts
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.spec.pipeline_defaults import pipeline_defaults
from dualproc_cli.spec.source import Entry, Tree

PRESETS = Path(__file__).with_name("presets.yaml")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is eight times as fast
ORIGIN = "preset"
WHOLE = ("processor", "scheduler")  # mappings of options, which are taken as they are or not at all


@dataclass(frozen=True)
class Preset:
    """The preset that was chosen for a model.

    Attributes:
        name: in ``presets.yaml``.
        why: what the model is, and how that is known.
    """

    name: str
    why: str


@cache
def presets() -> dict[str, Any]:
    """Return ``presets.yaml``."""
    return yaml.load(PRESETS.read_text("utf-8"), Loader=LOADER)


def generator_settings(model: str, revision: str | None = None) -> dict[str, Any]:
    """Return the values of ``generator`` that suit a model, besides its name."""
    facts = _facts_of_generator(model, revision)
    return _merged([_chosen("generators", model, facts).get("generator", {}), pipeline_defaults(facts)])


def fill_in(tree: Tree) -> tuple[dict[str, Preset], list[Fault]]:
    """Add the values of the presets for the keys that the spec leaves out.

    Returns:
        The presets by the part of the spec that names the model, ``generator``, ``vlm`` or ``evaluate.vlm``;
        and the fault of a preset that does not fit the generator.
    """
    found: dict[str, Preset] = {}
    faults = []
    if (named := _named(tree.data.get("generator", {}))) is not None:
        model, facts = named[0], _facts_of_generator(*named)
        chosen = _chosen("generators", model, facts)
        found["generator"] = _preset(chosen, model, facts)
        paper = tree.data.get("preset") == "paper"
        if paper and "paper" not in chosen:
            problem = f"the method's paper has no run of {model} ({found['generator'].name})"
            ran = ", ".join(one["name"] for one in presets()["generators"] if "paper" in one)
            faults.append(Fault(tree.entry(("preset",)).value, "preset", problem, f"auto, or one of {ran}"))
            paper = False
        settings = _settings(chosen, facts, paper)
        if "prompts" not in tree.data:  # validation reports that they are missing
            settings.pop("prompts", None)
        _fill(tree, (), tree.data, settings)
    evaluate = tree.data.get("evaluate")
    for key, path, section in (("vlm", (), tree.data), ("evaluate.vlm", ("evaluate",), evaluate)):
        vlm = section.get("vlm", {} if key == "vlm" else None) if isinstance(section, dict) else None
        if (named := _named(vlm)) is not None:
            fetch = not _by_name("vlms", named[0])
            facts = {"model": MINIATURE} if named[0] == MINIATURE else vlm_facts(*named, fetch)
            chosen = _chosen("vlms", named[0], facts)
            found[key] = _preset(chosen, named[0], facts)
            _fill(tree, path, section, {"vlm": chosen.get("vlm", {})})
    return found, faults


def _named(section: Any) -> tuple[str, str | None] | None:
    """Return the model and the revision of a part of a spec; None if it names none."""
    if not isinstance(section, dict):
        return None
    model, revision = section.get("model", MINIATURE), section.get("revision")
    return (model, revision if isinstance(revision, str) else None) if isinstance(model, str) else None


def _facts_of_generator(model: str, revision: str | None) -> Facts:
    return (
        {"model": MINIATURE}
        if model == MINIATURE
        else generator_facts(model, revision, not _by_name("generators", model))
    )


def _chosen(kind: str, model: str, facts: Facts) -> dict[str, Any]:
    """Return the first preset of a kind whose conditions all hold; the last one has none.

    Where the model's configuration is not at hand, its name has to do.
    """
    if not facts:
        return _by_name(kind, model) or presets()[kind][-1]
    return next(
        one
        for one in presets()[kind]
        if all(_holds(facts.get(key), wanted) for key, wanted in one.get("is", {}).items())
    )


def _by_name(kind: str, model: str) -> dict[str, Any] | None:
    return next((one for one in presets()[kind] if model in one.get("repositories", ())), None)


def _holds(value: Any, wanted: Any) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def _preset(chosen: Mapping[str, Any], model: str, facts: Facts) -> Preset:
    why = " ".join(chosen["why"].split())
    if facts:
        what = facts.get("pipeline") or facts.get("model_type") or model
        return Preset(chosen["name"], f"{what}: {why}")
    if model in chosen.get("repositories", ()):
        return Preset(chosen["name"], f"{why}; by the name of {model}, whose configuration is not here yet")
    return Preset(chosen["name"], f"nothing is known of {model}, whose configuration is not here yet")


def _settings(chosen: Mapping[str, Any], facts: Facts, paper: bool) -> dict[str, Any]:
    """Return the part of a spec that a generator's preset gives; what comes first wins."""
    own = {key: chosen[key] for key in ("generator", "learn", "prompts") if key in chosen}
    if facts.get("model") == MINIATURE:  # it has settings of its own for everything
        return own
    first = [chosen["paper"], own] if paper else [own, presets()["added"]]
    return _merged([*first, presets()["method"], {"generator": pipeline_defaults(facts)}])


def _merged(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return nested mappings merged; the values of earlier ones win."""
    found: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in found:
                found[key] = value
            elif isinstance(value, dict) and isinstance(found[key], dict) and key not in WHOLE:
                found[key] = _merged([found[key], value])
    return found


def _fill(tree: Tree, path: KeyPath, data: dict[str, Any], preset: Mapping[str, Any]) -> None:
    place = Place(str(PRESETS))
    for key, value in preset.items():
        at = (*path, key)
        if isinstance(value, dict) and key not in WHOLE:
            section = data.setdefault(key, {})
            if isinstance(section, dict):  # otherwise validation reports the fault
                _fill(tree, at, section, value)
        elif key not in data:
            data[key] = value
            tree.entries |= {(*at, *inner): Entry(place, place, ORIGIN) for inner in _paths(value)}


def _paths(value: Any) -> list[KeyPath]:
    inner = value.items() if isinstance(value, dict) else ()
    return [(), *((key, *path) for key, item in inner for path in _paths(item))]
