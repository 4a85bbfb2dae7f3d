"""Parity: ten steps of `preset: paper` equal a straight loop of the paper's formula."""

import importlib

import every  # noqa: F401  # fills the table of generators
import pytest
import straight_loop
import torch
import yaml
from diffusers import DiffusionPipeline
from families import saved
from PIL import Image
from small_generator import saved as small
from straight_loop import Step, distil, update
from torchvision.transforms.functional import to_tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from vlm_builders import FAMILIES
from vlm_parts import save

from dualproc_cli.generator.adapter import layers
from dualproc_cli.generator.generator import LEARNED
from dualproc_cli.learning import learn
from dualproc_cli.learning.learner import Learner
from dualproc_cli.spec import load_spec

SIZE = 32  # pixels
STEPS = 10
SUFFIX = "Answer with Yes or No."
GENERATORS = {  # the straight loop of each, and its folder
    "flux-schnell": ("flux", lambda: small("flux")),
    "flux-dev": ("flux", lambda: saved("Flux")),
    "stable-diffusion": ("stable_diffusion", lambda: saved("StableDiffusion")),
    "sana-512": ("sana", lambda: saved("Sana")),
}
PAIRS = [
    ("flux-schnell", "LLaVA-1.5"),
    ("flux-dev", "Idefics2"),
    ("stable-diffusion", "LLaVA-1.5"),
    ("sana-512", "Idefics2"),
    *(
        pytest.param(*pair, marks=pytest.mark.matrix)
        for pair in (
            ("flux-schnell", "Idefics2"),
            ("flux-dev", "LLaVA-1.5"),
            ("stable-diffusion", "Idefics2"),
            ("sana-512", "LLaVA-1.5"),
        )
    ),
]


@pytest.fixture(scope="module")
def vlms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlms")
    return {name: save(FAMILIES[name].build(), folder / name) for name in ("LLaVA-1.5", "Idefics2")}


@pytest.fixture
def learners(monkeypatch):
    """The learners of the runs, each with its first adapter and what was random in its steps."""
    made = []

    class Watched(Learner):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.first, self.drawn = self.generator.adapter_state(), []
            self.phase.gradient = self._watch(self.phase.gradient)
            made.append(self)

        def _watch(self, draw):
            def drawn(rng):
                gradient = draw(rng)
                self.drawn[-1].denoising_step = gradient.step
                return gradient

            return drawn

        def _draw(self, count):
            prompts, seeds = super()._draw(count)
            self.drawn.append(Step(prompts[0], seeds[0], 0))
            return prompts, seeds

    monkeypatch.setattr(importlib.import_module("dualproc_cli.learning.control"), "Learner", Watched)
    return made


@pytest.mark.parametrize(("name", "vlm"), PAIRS)
def test_ten_steps_are_those_of_the_paper(name, vlm, vlms, learners, tmp_path):
    kind, folder = GENERATORS[name]
    torch.manual_seed(0)
    Image.fromarray(torch.randint(256, (SIZE, SIZE, 3), dtype=torch.uint8).numpy()).save(
        tmp_path / "over.png"
    )
    spec = {
        "name": "parity",
        "preset": "paper",
        "generator": {"model": str(folder()), "width": SIZE, "height": SIZE},
        "vlm": {"model": str(vlms[vlm])},
        "prompts": {"train": ["a red house by the sea", "a tree"]},
        "visual_prompts": {"over": {"type": "image", "path": "over.png", "mode": "transparent"}},
        "question_suffix": SUFFIX,
        "questions": [
            {"name": "line", "question": "Is there a house?", "answer": "Yes", "visual_prompt": "over"},
            {"name": "night", "question": "Is it night?", "answer": "No no"},
        ],
        "learn": {"steps": STEPS, "validation_pictures": 0},
    }
    if name != "flux-schnell":
        spec["generator"]["steps"] = 6  # many more would add up rounding, and take longer
    if name == "stable-diffusion":  # its own noise levels, which the small model's scheduler lacks
        levels = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        spec["generator"]["scheduler"] = {"class": "DDIMScheduler", **levels}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    loaded = load_spec(tmp_path / "spec.yaml")
    assert loaded.presets["generator"].name == name
    learn(loaded, tmp_path / "out", device=torch.device("cpu"))
    (learner,) = learners
    after = learner.generator.adapter_state()

    pipe = DiffusionPipeline.from_pretrained(folder())
    model = AutoModelForImageTextToText.from_pretrained(vlms[vlm]).eval()
    processor = AutoProcessor.from_pretrained(vlms[vlm])
    if vlm == "Idefics2":
        processor.image_processor.do_image_splitting = False
    for part in (*pipe.components.values(), model):
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    over = to_tensor(Image.open(tmp_path / "over.png"))[None]
    questions = [
        (f"Is there a house? {SUFFIX}", "Yes", over),
        (f"Is it night? {SUFFIX}", "No no", None),
    ]
    generator = loaded.spec.generator
    settings = SIZE, generator.steps, generator.guidance_scale
    losses, expected = distil(
        getattr(straight_loop, kind),
        pipe,
        model,
        processor,
        settings,
        questions,
        learner.first,
        learner.drawn,
        loaded.spec.learn.learning_rate,
    )
    assert [entry.loss for entry in learner.metrics] == pytest.approx(losses, rel=1e-4)
    assert apart(after, expected, "lora_A") < 2e-6  # weight decay alone would move it further
    # B was zero. AdamW divides by the gradient's own size: where that is rounding, so is the step.
    assert apart(after, expected, "lora_B") < 1e-3
    # The LoRA's travel: what the product's own layers add to the weights now; they added nothing before.
    added = [layer.get_delta_weight(LEARNED).flatten() for layer in layers(learner.generator.denoiser)]
    travel = torch.cat(added).norm()
    assert float(travel) == pytest.approx(float(update(expected).norm()), rel=1e-3)
    assert float(update(learner.first).norm()) == 0 < float(travel)


def apart(found, expected, part):
    """The norm of the difference of two adapters' tensors with ``part`` in their names, relative."""
    one, other = (
        torch.cat([state[name].flatten() for name in expected if part in name]) for state in (found, expected)
    )
    return float((one - other).norm() / other.norm())
