"""``README.md`` of a bundle: a model card for the Hugging Face hub."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dualproc_cli.bundle.layout import ADAPTER, GRID
from dualproc_cli.bundle.manifest import Outcome, Revisions, VerdictRecord
from dualproc_cli.metrics import StepMetrics, first_and_last_probability
from dualproc_cli.spec import ControlSpec, GeneratorSpec
from dualproc_cli.spec.models import MINIATURE
from dualproc_cli.spec.weights_files import adapter_file

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

CARD = """\
---
{front_matter}---

# {name}

{description}

A visual control for {generator}, learned by [dual-process distillation](https://arxiv.org/abs/2506.01955): no
pictures were collected; the vision-language model {vlm} was asked about the generator's own pictures, and its
answers taught this adapter.

![Base generator above, with this control below; the same prompts and seeds]({grid})

## Use

With dualproc:

```bash
dualproc sample {prompt} --control PATH_OF_THIS_FOLDER
```

With plain diffusers:

```python
{code}```
{steering}
## What it learned

| question | expected answer | P(answer) at first | at last |
|---|---|---|---|
{questions}
{words}
The VLM gave these P(answer) while learning ({outcome});
`dualproc evaluate` measures on held-out seeds and prompts.
`spec.yaml` is the spec of this control, `bundle.json` the record of the run.
"""

CODE = """\
import torch
from diffusers import {imports}
device = "cuda" if torch.cuda.is_available() else "cpu"
pipe = DiffusionPipeline.from_pretrained({source}, dtype={dtype}{revision}{trust}).to(device)
{scheduler}{load}image = pipe(
    {prompt!r},
{arguments}
    generator=torch.Generator().manual_seed(0),
).images[0]
"""

VERDICT = """\

## Verdict

**{name}**: {reason}.

| of the pictures | share |
|---|---|
{rows}

Judged on {judged}. `report.html` has the pictures, the curves, and what was tried to find out.
"""
VERDICT_SECTION = re.compile(r"\n## Verdict\n.*?(?=\n## )|(?=\n## Use\n)", re.DOTALL)
FIGURES = {
    "confirmed": "right, as far as is known",
    "confirmed_and_clean": "right and clean",
    "base_right_and_clean": "right and clean, without this control",
    "answered": "answered as expected by the VLM that was trained against",
    "perturbed": "the same under small perturbations",
    "held-out wordings": "the same in wordings that were not learned on",
    "opposite wordings": "the same when asked for the opposite",
    "blank picture": "the same beyond what the VLM says of a blank picture",
}

STEERING = """
`steering.safetensors` holds what the adapter was taught: how the generator's inputs are steered.
Where dualproc is installed, the same pipeline draws steered pictures without the adapter:

```python
from dualproc_cli.generator import steered

pipe.unload_lora_weights()
with steered(pipe, "PATH_OF_THIS_FOLDER"):
    image = pipe(
        {prompt!r},
{arguments}
        generator=torch.Generator().manual_seed(0),
    ).images[0]
```
"""

WORDS = """
It was taught to draw prompts as others are drawn, whose pictures answer as expected:

| prompt | is drawn as |
|---|---|
{rows}
"""

REASONS = {
    "steps": "all {} steps were taken",
    "stop_at": "stopped after {} steps, since they stayed above the spec's stop_at",
    "interrupted": "interrupted; this is the best state, of step {}",
    "out-of-memory": "stopped because memory ran out; this is the best state, of step {}",
    "not-finite": "stopped by a loss that was not finite; this is the best state, of step {}",
}


def model_card(
    spec: ControlSpec,
    metrics: Sequence[StepMetrics],
    outcome: Outcome,
    revisions: Revisions,
    arguments: Mapping[str, Any],
    words: Mapping[str, str],
    *,
    steering: bool = False,
) -> str:
    """Return the card: what the control does, how to use it, what it learned. It does not state a licence.

    Args:
        spec: the spec of the control.
        metrics: the metrics of every step.
        outcome: how the run ended.
        revisions: the commits that the models were resolved to.
        arguments: the pipeline's arguments, besides prompt and seed, to draw as dualproc does.
        words: the prompts that the adapter was taught to draw as others, and these others.
        steering: whether the bundle holds the steering too.
    """
    prompt = spec.prompts.train[0]
    return CARD.format(
        front_matter=yaml.safe_dump(_front_matter(spec), sort_keys=False, allow_unicode=True),
        name=spec.name,
        description=spec.description or "A visual control.",
        generator=_named(spec.generator.model),
        vlm=_named(spec.vlm.model),
        grid=GRID,
        prompt=_quoted(prompt),
        code=_code(spec.generator, revisions.generator, prompt, arguments),
        steering=_steering(words.get(prompt, prompt), arguments) if steering else "",
        words=_taught(words) if words else "",
        questions="\n".join(_row(spec, index, metrics) for index in range(len(spec.questions))),
        outcome=REASONS[outcome.reason].format(outcome.step),
    )


def with_verdict(card: str, verdict: VerdictRecord, judged: str) -> str:
    """Return a model card with a verdict on the control, in place of the one that it had.

    Args:
        card: a model card.
        verdict: on the control.
        judged: which pictures it is on, in words.
    """
    known = {words: verdict.figures.get(name) for name, words in FIGURES.items()}
    rows = "\n".join(f"| {words} | {share:.0%} |" for words, share in known.items() if share is not None)
    section = VERDICT.format(name=verdict.name, reason=verdict.reason, rows=rows, judged=judged)
    return VERDICT_SECTION.sub(lambda _: section, card, count=1)


def _front_matter(spec: ControlSpec) -> dict[str, Any]:
    model = spec.generator.model
    base = {"base_model": model, "base_model_relation": "adapter"} if _on_hub(model) else {}
    return {
        **base,
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["diffusers", "lora", "text-to-image", "dualproc", "dual-process-distillation"],
    }


def _on_hub(model: str) -> bool:
    return HUB_ID.fullmatch(model) is not None and not model.startswith(".") and not Path(model).exists()


def _named(model: str) -> str:
    if model == MINIATURE:
        return "dualproc's miniature"
    return f"[{model}](https://huggingface.co/{model})" if _on_hub(model) else f"`{model}`"


def _code(spec: GeneratorSpec, revision: str | None, prompt: str, arguments: Mapping[str, Any]) -> str:
    miniature, scheduler = spec.model == MINIATURE, spec.scheduler.get("class")
    auto = 'torch.bfloat16 if device == "cuda" else torch.float32'
    return CODE.format(
        dtype=auto if spec.dtype == "auto" else f"torch.{spec.dtype}",
        arguments=_lines(arguments, indent=4),
        imports=", ".join(sorted({"DiffusionPipeline", *([scheduler] if scheduler else [])}))
        + ("\nfrom dualproc_cli.miniature import generator_folder" if miniature else "")
        + "\n",
        scheduler=_scheduler(spec.scheduler),
        source=f"generator_folder({revision!r})" if miniature else repr(spec.model),
        revision=f", revision={revision!r}" if revision and not miniature else "",
        trust=", trust_remote_code=True" if spec.trust_remote_code else "",
        prompt=prompt,
        load=_load(spec),
    )


def _scheduler(options: Mapping[str, Any]) -> str:
    """Return the line that changes the pipeline's scheduler as the spec does, if it does."""
    if not options:
        return ""
    kind = options.get("class", "type(pipe.scheduler)")
    others = "".join(f", {key}={value!r}" for key, value in options.items() if key != "class")
    return f"pipe.scheduler = {kind}.from_config(pipe.scheduler.config{others})\n"


def _load(spec: GeneratorSpec) -> str:
    """Return the code that loads the control, and before it the adapters that it was learned on top of."""
    if not spec.adapters:
        return 'pipe.load_lora_weights("PATH_OF_THIS_FOLDER")\n'
    files = {f"carried_{index}": adapter_file(one.path) for index, one in enumerate(spec.adapters)}
    lines = [
        f'pipe.load_lora_weights("PATH_OF_THIS_FOLDER", weight_name={file!r}, adapter_name={name!r})'
        for name, file in {**files, "control": ADAPTER}.items()
    ]
    scales = [*(one.scale for one in spec.adapters), 1.0]
    return "\n".join([*lines, f"pipe.set_adapters({[*files, 'control']}, {scales})\n"])


def _steering(prompt: str, arguments: Mapping[str, Any]) -> str:
    return STEERING.format(prompt=prompt, arguments=_lines(arguments, indent=8))


def _taught(words: Mapping[str, str]) -> str:
    rows = [_cells(change) for change in words.items() if len(set(change)) == 2]
    return WORDS.format(rows="\n".join(rows))


def _lines(arguments: Mapping[str, Any], indent: int) -> str:
    return "\n".join(f"{' ' * indent}{name}={value!r}," for name, value in arguments.items())


def _row(spec: ControlSpec, index: int, metrics: Sequence[StepMetrics]) -> str:
    question = spec.questions[index]
    first, last = first_and_last_probability(metrics, question.name)
    return _cells((question.question, question.answer, f"{first:.2f}", f"{last:.2f}"))


def _cells(texts: Iterable[str]) -> str:
    """Return a row of a table in Markdown."""
    return "| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in texts) + " |"


def _quoted(prompt: str) -> str:
    """Return ``prompt`` as one argument for a shell."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", " ".join(prompt.split())) + '"'
