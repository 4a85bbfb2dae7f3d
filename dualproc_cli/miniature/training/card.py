"""The model card of the miniature, written from its figures."""

from typing import Any

HEAD = """---
license: apache-2.0
library_name: diffusers
tags: [text-to-image, image-text-to-text, dualproc]
---

# The miniature

A small text-to-image generator and a small vision-language model, trained on a procedural world of 64x64
landscapes. They are of the same classes as the large ones, so everything that dualproc does with those it
does with these, on a laptop, without a download. Because the world is procedural, what is in a picture can be
measured on its pixels.

- `generator/`: a `FluxPipeline` ({generator_millions:.1f} M parameters). One step draws a picture.
- `vlm/`: an `Idefics3ForConditionalGeneration` with its processor.
- `reader/`: the scene reader, a convolutional network that the independent measures use.

```python
import torch
from diffusers import FluxPipeline

pipe = FluxPipeline.from_pretrained("generator", dtype=torch.float32)
options = dict(height=64, width=64, num_inference_steps=1, guidance_scale=0.0, max_sequence_length=8)
pipe("a house in a field", **options).images[0]
```

The world, as the renderer draws it:

![24 renders](world.png)

What the generator draws, one step each:

![64 generated pictures](grid.png)
"""

TRAINING = """\
`python -m dualproc_cli.miniature.training NAME`, where NAME is in turn `autoencoder`, `generator`, `reader`,
`vlm`, `attacks`, `adversarial` and `release`. Called again, `vlm` and `adversarial` go on from the exported
weights, and of the autoencoder the decoder alone; `attacks` and `adversarial` in turn are rounds.

- The generator is a rectified flow. Its starting noise says which scene to draw, so one step is plain
  regression.
- The VLM is asked three questions about each picture. The pictures are renders, decoded renders, corrupted
  ones, ones of which a part has a wrong colour (a sun that vanishes, a window like its wall), and blends of
  two scenes; only what is true of both scenes is true of a blend, and nothing of a badly corrupted picture,
  except that it is not clean. Open questions about such a picture are answered "unclear". A picture that the
  generator drew is as clean as the nearest scene explains it.
- `attacks` learns adapters and steerings that attack the VLM, and labels their pictures with the reader;
  `adversarial` trains the VLM on these and on the generator's pictures. Meanwhile it recolours scenes, to
  make the VLM say that they match a palette, and tells it whether they do; of half of them only the subject
  is off. Auxiliary heads compare sky, ground and subject.
- Half of the scenes of autoencoder, reader and VLM have any colours; those of the generator have a family's.
"""


def card(training: dict[str, Any], figures: dict[str, Any]) -> str:
    """Write the model card in Markdown: the networks, their training, and how good they are on fresh scenes.

    Args:
        training: by the name of a training, the facts that it recorded.
        figures: from `release.measure_weights`.
    """
    parts = [
        HEAD.format(generator_millions=figures["generator_millions"]),
        "## How they were trained\n",
        TRAINING,
        _training_table(training),
        "## The generator, on fresh seeds\n",
        _generator_table(figures),
        "## The VLM, on fresh scenes\n",
        "*clear*: accuracy where the answer is clear, that is, far enough from the tolerance.\n"
        "*Yes*: share of Yes if true and false came equally often.\n",
        _vlm_table(figures),
        _palette_line(figures["vlm_yes_to_palettes"]),
        "## The independent measures, on true renders\n",
        _table(["error", "mean"], [[name, value] for name, value in figures["measures_on_renders"].items()]),
        "## Speed\n",
        f"On {figures['machine']}: both models are imported and loaded in "
        f"{figures['seconds']['import_and_load_both']} s, "
        f"16 pictures in one step take {figures['seconds']['sixteen_pictures']} s.\n",
    ]
    return "\n".join(parts)


def _training_table(training: dict[str, Any]) -> str:
    columns = ["samples", "minutes", "seed", "batch_size", "learning_rate", "machine"]
    rows = [
        [name, *(stage.get(column) for column in columns)]
        for name, facts in training.items()
        for stage in _stages(facts)
    ]
    return _table(["training", *(column.replace("_", " ") for column in columns)], rows)


def _stages(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of a training, after those of the trainings whose weights it started from."""
    return [*(_stages(facts["before"]) if "before" in facts else []), facts] if facts else []


def _generator_table(figures: dict[str, Any]) -> str:
    one, four = figures["generator_1_step"], figures["generator_4_steps"]
    rows = [[name, one[name], four[name]] for name in one if name != "attributes"]
    for name in one["attributes"]:
        for what in one["attributes"][name]:
            rows.append([f"{name}: {what}", one["attributes"][name][what], four["attributes"][name][what]])
    return _table(["", "1 step", "4 steps"], rows)


def _vlm_table(figures: dict[str, Any]) -> str:
    pictures = {"renders": "renders", "generated": "generated pictures", "corrupted": "corrupted renders"}
    pictures = {name: said for name, said in pictures.items() if f"vlm_on_{name}" in figures}
    rows = [
        [
            kind,
            *(figures[f"vlm_on_{name}"].get(kind, {}).get("right_when_clear") for name in pictures),
            found["yes_share_balanced"],
        ]
        for kind, found in figures["vlm_on_renders"].items()
    ]
    return _table(["kind of question", *(f"clear, on {said}" for said in pictures.values()), "Yes"], rows)


def _palette_line(yes: dict[str, float]) -> str:
    off = ", ".join(f"{share:.0%} where {name} is off" for name, share in yes.items() if name != "none")
    return (
        f"Asked whether the colors match a palette, it says so of {yes['none']:.0%} that do, and of {off}.\n"
    )


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [["" if cell is None else str(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
