"""Every generator family through the same path as a hub model: pictures, gradients, adapter."""

import functools

import families
import flow  # noqa: F401  # adds its families, as those below do
import llm  # noqa: F401
import pytest
import torch
import transformers_classic  # noqa: F401
import unet  # noqa: F401
from diffusers import DiffusionPipeline
from families import PROMPT, SEED, STEPS, adapted, load, plain_picture, saved
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraConfig
from safetensors.torch import load_file
from torch import Tensor

from dualproc_cli.generator import Generator, adapter
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.checkpointing import checkpoint_blocks
from dualproc_cli.spec import GradientSpec

ALWAYS = ("Flux", "StableDiffusion", "Sana", "PRXPixel", "HunyuanDiT")  # the others with -m matrix
WHOLE = GradientSpec(steps=STEPS)
LAST = GradientSpec(steps=1)
JUMP = GradientSpec(through="x0-jump", steps=1)
# Their last step ends at the clean estimate.
STRAIGHT = ("FlowMatchEulerDiscreteScheduler", "SCMScheduler", "LCMScheduler")

pytestmark = pytest.mark.recorded("generator")
each = pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.matrix) for name in families.FAMILIES],
)
learned = functools.lru_cache(maxsize=1)(adapted)


@pytest.fixture(autouse=True)
def remedies(request, record_property):
    record_property(
        "remedies", [remedy.name for remedy in learned(request.getfixturevalue("family")).remedies]
    )


def picture(generator: Generator, gradient: GradientSpec | None = None) -> Tensor:
    return generator.render([PROMPT], [SEED], gradient=gradient)


def gradients(generator: Generator, images: Tensor) -> dict[str, Tensor]:
    """Of a fixed weighted sum of pixels, by adapter weight; zeros where there is none."""
    tensors = adapter.tensors(generator.denoiser, "learned")
    found = torch.autograd.grad(weighted(images), list(tensors.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if gradient is None else gradient
        for (name, tensor), gradient in zip(tensors.items(), found, strict=True)
    }


def weighted(images: Tensor) -> Tensor:
    return (images * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).double().sum()


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    scale = max(gradient.abs().max().item() for gradient in theirs.values())
    assert scale > 0
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=1e-4 * scale, msg=name)


@each
def test_images(family):
    expected = plain_picture(DiffusionPipeline.from_pretrained(saved(family)), family)
    assert expected.std() > 0.01
    generator = load(family)
    torch.testing.assert_close(picture(generator), expected, atol=2e-6, rtol=0)
    generator = learned(family)
    with generator.without_adapter():
        torch.testing.assert_close(picture(generator), expected, atol=2e-6, rtol=0)
    assert (picture(generator) - expected).abs().max() > 1e-3


@each
def test_batches(family):
    generator = load(family)
    prompts, seeds = ["a ball", "a red tree by the sea and a blue ball in a house"], [3, 4]
    together = generator.render(prompts, seeds)
    alone = [generator.render([prompt], [seed]) for prompt, seed in zip(prompts, seeds, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)


@each
def test_gradients(family):
    generator = learned(family)
    images = picture(generator, WHOLE)
    assert torch.equal(images.detach(), picture(generator))
    slopes = gradients(generator, images)
    assert all(gradient.isfinite().all() for gradient in slopes.values())
    dead = [name for name, gradient in slopes.items() if not gradient.any()]
    tensors = adapter.tensors(generator.denoiser, "learned")
    with moved(tensors, {name: torch.ones_like(tensors[name]) for name in dead}, torch.ones(())):
        assert torch.equal(picture(generator), images.detach()), f"no gradient reaches {dead}"
    assert len(dead) < len(slopes) / 2


@each
def test_finite_differences(family):
    generator = learned(family)
    slopes = gradients(generator, picture(generator, WHOLE))
    noise = torch.Generator().manual_seed(1)
    size = torch.cat([gradient.flatten() for gradient in slopes.values()]).norm()
    # Along the gradient itself, and across it.
    along = {name: gradient / size for name, gradient in slopes.items()}
    across = {name: torch.randn(gradient.shape, generator=noise) for name, gradient in slopes.items()}
    for direction in (along, across):
        expected = sum((slopes[name] * direction[name]).double().sum() for name in slopes)
        expected, tolerance = expected / length(direction), 0.005 * size
        # Small enough for a curved function, large enough for float32: which one is depends on the family.
        found = [difference(generator, direction, step) for step in (3e-3, 1e-3, 3e-4, 1e-4)]
        assert min((value - expected).abs() for value in found) < tolerance + 0.02 * expected.abs()


def length(direction: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in direction.values()]).norm()


def difference(generator: Generator, direction: dict[str, Tensor], step: float) -> Tensor:
    """The slope of the weighted sum, over ``step`` to either side."""
    tensors, ends = adapter.tensors(generator.denoiser, "learned"), []
    for end in (step, -step):
        with moved(tensors, direction, end / length(direction)):
            ends.append(weighted(picture(generator)))
    return (ends[0] - ends[1]) / (2 * step)


class moved:  # noqa: N801
    """Inside the block, the weights are moved along a direction."""

    def __init__(
        self, tensors: dict[str, Tensor], direction: dict[str, Tensor], step: Tensor | float
    ) -> None:
        self.tensors = {name: tensors[name] for name in direction}
        self.before = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        self.direction, self.step = direction, step

    def __enter__(self) -> None:
        for name, tensor in self.tensors.items():
            tensor.data = self.before[name] + self.step * self.direction[name]

    def __exit__(self, *_: object) -> None:
        for name, tensor in self.tensors.items():
            tensor.data = self.before[name]


@each
def test_last_steps(family):
    generator = learned(family)
    images = picture(generator, LAST)
    assert torch.equal(images.detach(), picture(generator))
    ours = gradients(generator, images)
    scheduler = generator.pipeline.scheduler
    count = []
    step = scheduler.step

    def detached(*args, **kwargs):
        count.append(1)
        if len(count) == total:
            return step(*args, **kwargs)
        args = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
        return step(*args, **{k: v.detach() if isinstance(v, Tensor) else v for k, v in kwargs.items()})

    total = generator.call([PROMPT], [SEED], steps=STEPS)[1]
    scheduler.step = functools.wraps(step)(detached)
    whole = picture(generator, GradientSpec(steps=total))
    assert len(count) == total
    assert torch.equal(whole.detach(), images.detach())
    assert_same(ours, gradients(generator, whole))


@each
def test_x0_jump(family):
    generator = learned(family)
    calls = []
    hook = next(iter(generator.denoiser.children())).register_forward_hook(lambda *_: calls.append(1))
    plain = picture(generator)
    whole, calls[:] = len(calls), []
    images = picture(generator, JUMP)
    hook.remove()
    assert 0 < len(calls) <= whole / 2
    assert not torch.equal(images.detach(), plain)
    assert any(gradient.any() for gradient in gradients(generator, images).values())
    if type(generator.pipeline.scheduler).__name__ in STRAIGHT:
        last = picture(generator, GradientSpec(through="x0-jump", steps=STEPS))
        torch.testing.assert_close(last.detach(), plain, atol=1e-4, rtol=0)


@each
def test_checkpointing(family):
    generator = learned(family)
    images = picture(generator, WHOLE)
    expected = gradients(generator, images)
    generator = adapted(family)
    checkpoint_blocks(generator.denoiser)
    again = picture(generator, WHOLE)
    assert torch.equal(again.detach(), images.detach())
    assert_same(gradients(generator, again), expected)


@each
def test_adapter(family, tmp_path):
    generator = learned(family)
    path = generator.save_adapter(tmp_path)
    pipeline = DiffusionPipeline.from_pretrained(saved(family))
    if hasattr(pipeline, "load_lora_weights"):
        pipeline.load_lora_weights(tmp_path)
    else:
        file = AdapterFile.read(tmp_path)
        denoiser = getattr(pipeline, file.component)
        config = LoraConfig(r=file.rank, lora_alpha=file.alpha, target_modules=file.target_modules)
        inject_adapter_in_model(config, denoiser, "default")
        state = {key.partition(".")[2]: value for key, value in load_file(path).items()}
        for key, parameter in adapter.tensors(denoiser, "default").items():
            parameter.data = state[key]
    torch.testing.assert_close(plain_picture(pipeline, family), picture(generator), atol=2e-6, rtol=0)
