"""Whatever a spec file holds, it either loads, or every mistake is named."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dualproc_cli.spec import SpecError, canonical, json_schema, load_spec

EVERY_KEY = yaml.safe_load("""\
version: 1
name: every-key
description: all of the language
preset: auto
question_suffix: Answer with Yes or No.
generator: {model: miniature, revision: null, width: 64, height: 64, steps: 2, guidance_scale: 0.0,
  dtype: auto, quantization: none, trust_remote_code: false, base: null, device: cuda, adapters: [],
  scheduler: {class: DDIMScheduler, rescale_betas_zero_snr: true, trained_betas: [0.1, 0.2]},
  compile: false}
memory: [tile-vae]
vlm: {model: miniature, device: 'cuda:1', revision: main, dtype: float32, quantization: none,
  image_scale: 0.5, trust_remote_code: false,
  processor: {do_image_splitting: false, size: {longest_edge: 980}}}
prompts: {train: [a house, a tree], held_out: [a ball], variety: [a dog]}
visual_prompts:
  target: {type: line, orientation: horizontal, position: 0.65, thickness: 0.03, color: red}
  brand: {type: palette, colors: ["#1b3a4b", red], edge: bottom, size: 0.12}
  depth: {type: points, points: [{label: A, x: 0.3, y: 0.6}, {label: B, x: 0.7, y: 0.8}], color: red}
  area: {type: box, left: 0.5, top: 0.4, right: 1.0, bottom: 1.0, color: red}
questions:
  - {name: one, question: "Is it?", answer: "Yes", alternatives: ["No"], visual_prompt: target, weight: 1.0,
    paraphrases: ["Is it so?"], held_out_paraphrases: ["Is that so?"], opposites: ["Is it otherwise?"]}
  - {name: two, question: "Is it?", answer: "No", alternatives: [], visual_prompt: brand, weight: 0.5,
    region: {left: 0.1, top: 0.2, right: 0.9, bottom: 0.8},
    paraphrases: []}
learn: {where: [noise, weights], steer: {learning_rate: 1.0e-3, from_prompts: false, from_answers: false},
  teach: {steps: 300, batch_size: 16, learning_rate: 1.0e-3, keep_steering: false},
  keep_best: last, validate_every: 50, validation_pictures: 48,
  steps: 100, batch_size: 4, micro_batch: 2, learning_rate: 5.0e-5, seed: 0,
  objective: likelihood, gradient_clip: 1.0,
  noise_pool: 100, variety: 0.25, schedule: constant, optimizer: {betas: [0.9, 0.999], weight_decay: 0.0},
  stop_at: 0.9, extend: 2.0, checkpoint_every: 25,
  adapter: {rank: 16, init: gaussian, scale: 2.5, target_modules: [to_q]},
  gradient: {through: x0-jump, steps: 1, step: random, renoise: false},
  keep: {picture: 0.0, structure: 0.0, smoothness: 0.0, matting: 0.0, recoloring: 0.0, details: 0.0,
    noise: 0.05, conditioning: 0.05, colors: 0.5, clean: 0.5},
  jitter: {noise: 0.0, shift: 0.0, zoom: 0.0, blur: 0.0, views: 1}}
evaluate: {seeds: 32, vlm: {model: other/vlm}, measures: [horizon, palette,
  {type: distance, name: near, at_most: 0.1}, {type: diversity, name: varied},
  {type: palette, name: brand-colors, target: brand, at_most: 10.0},
  {type: distance, name: drift, to: base, model: org/dinov2, revision: main},
  {type: objects, name: dogs, model: org/owl, revision: null, label: a dog, count: 2, threshold: 0.3,
    questions: [one]},
  {type: placement, name: in, model: org/owl, revision: null, label: a dog, target: area, at_least: 0.8,
    threshold: 0.3},
  {type: depth-order, name: nearer, model: org/depth, revision: null, points: depth, order: [B, A],
    margin: 0.05, nearer: auto},
  {type: boundary, name: skyline, model: org/seg, revision: null, label: sky, edge: lower, target: target,
    tolerance: 0.05},
  {type: line-weight, name: pen, target: target, tolerance: 0.01},
  {type: similarity, name: prompt, model: org/clip, revision: null, to: prompt, at_least: 0.2},
  {type: preference, name: liked, model: org/pick, revision: null, processor: org/clip, worse_by: 0.5},
  {type: statistic, name: detail, of: high-frequency}]}
""")
LINE = re.compile(r"^(.+:\d+:\d+|--set .*?): .+ \(expected .+\)$")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers() | st.floats()
words = st.sampled_from(
    ["line", "box", "auto", "red", "target", "one", "type", "name", "path", "x", "points", "../x"]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | texts, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "spec.yaml"


def load_or_refuse(path: Path, text: str, *overrides: str):
    """Return the loaded spec, or None if it was refused with proper error lines."""
    path.write_text(text, "utf-8", newline="")
    try:
        return load_spec(path, overrides)
    except SpecError as error:
        lines = str(error).split("\n")
    assert [line for line in lines if not LINE.match(line)] == []
    return None


def paths(data, at=()):
    yield at
    for key, value in (
        data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    ):
        yield from paths(value, (*at, key))


PATHS = list(paths(EVERY_KEY))[1:]


def mutated(mutations):
    data = copy.deepcopy(EVERY_KEY)
    for where, value in mutations:
        at = data
        try:
            for part in where[:-1]:
                at = at[part]
            at[where[-1]] = value
        except (KeyError, IndexError, TypeError):  # an earlier mutation has replaced the place
            continue
    return data


mutations = st.lists(st.tuples(st.sampled_from(PATHS), values), min_size=1, max_size=4)


def test_every_key_is_there(path):
    spec = load_or_refuse(path, json.dumps(EVERY_KEY)).spec
    assert set(EVERY_KEY["learn"]) == set(spec.model_dump()["learn"])
    jsonschema.Draft202012Validator(json_schema()).validate(EVERY_KEY)


@settings(max_examples=100, deadline=None)
@given(texts | st.text(alphabet="a:-[]{}&*<!?|>'\"#%@\n\t ,0.", max_size=60))
def test_any_text(path, text):
    load_or_refuse(path, text)


@settings(max_examples=100, deadline=None)
@given(mutations)
def test_any_values(path, mutations):
    data = mutated(mutations)
    valid = jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    # In JSON, as the canonical form is; escaped, since YAML folds some characters.
    loaded = load_or_refuse(
        path, json.dumps(data, allow_nan=True).replace("NaN", ".nan").replace("Infinity", ".inf")
    )
    assert valid or loaded is None, "the schema rejects what the loader accepts"
    if loaded:
        assert load_or_refuse(path, canonical(loaded.spec)).spec == loaded.spec


@settings(max_examples=100, deadline=None)
@given(st.lists(texts | st.tuples(st.sampled_from(PATHS), texts | st.just("[1")), min_size=1, max_size=3))
def test_any_override(path, overrides):
    settings = [
        override if isinstance(override, str) else f"{'.'.join(map(str, override[0]))}={override[1]}"
        for override in overrides
    ]
    load_or_refuse(path, json.dumps(EVERY_KEY), *settings)
