"""What generators and schedulers are both asked: pictures, and gradients of a weighted sum of pixels."""

import functools

import torch
from families import PROMPT, SEED, STEPS
from torch import Tensor

from dualproc_cli.generator import Generator, adapter
from dualproc_cli.spec import GradientSpec

WHOLE = GradientSpec(steps=2 * STEPS)  # some schedulers step more often
LAST = GradientSpec(steps=1)
JUMP = GradientSpec(through="x0-jump", step=1)


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


def check_last_step(generator: Generator) -> None:
    """The last step's gradient is that of the whole graph, cut before that step."""
    images = picture(generator, LAST)
    assert torch.equal(images.detach(), picture(generator))
    ours = gradients(generator, images)
    total = generator.call([PROMPT], [SEED], steps=STEPS)[1]
    scheduler, taken = generator.pipeline.scheduler, []
    step = scheduler.step

    @functools.wraps(step)
    def cut(*args, **kwargs):
        taken.append(step)
        if len(taken) == total:
            return step(*args, **kwargs)
        return step(*map(detached, args), **{name: detached(value) for name, value in kwargs.items()})

    scheduler.step = cut
    whole = picture(generator, WHOLE)
    del scheduler.step  # its class has the original
    assert len(taken) == total
    assert torch.equal(whole.detach(), images.detach())
    assert_same(ours, gradients(generator, whole))


def detached(value: object) -> object:
    return value.detach() if isinstance(value, Tensor) else value


def check_jump(generator: Generator) -> None:
    """A jump from the first step asks the denoiser once, and carries a gradient."""
    calls = []
    hook = adapter.layers(generator.denoiser)[0].register_forward_hook(lambda *_: calls.append(1))
    plain = picture(generator)
    whole, calls[:] = len(calls), []
    images = picture(generator, JUMP)
    hook.remove()
    assert 0 < len(calls) <= whole / 2
    assert not torch.equal(images.detach(), plain)
    slopes = gradients(generator, images)
    assert all(gradient.isfinite().all() for gradient in slopes.values())
    assert any(gradient.any() for gradient in slopes.values())


def check_differences(generator: Generator) -> None:
    """Finite differences of the whole way, along the gradient and across it."""
    slopes = gradients(generator, picture(generator, WHOLE))
    noise = torch.Generator().manual_seed(1)
    along, tensors = slopes, adapter.tensors(generator.denoiser, "learned")
    across = {name: torch.randn(gradient.shape, generator=noise) for name, gradient in slopes.items()}
    for direction in (along, across):
        expected = sum((slopes[name] * direction[name]).double().sum() for name in slopes) / length(direction)
        tolerance = 0.02 * expected.abs() + 0.005 * length(slopes)
        # Small enough for a curved function, large enough for float32: which one is depends on the family.
        steps = (1e-3, 3e-4, 3e-3, 1e-4, 1e-2, 3e-5)
        assert any(
            (difference(generator, tensors, direction, step) - expected).abs() < tolerance for step in steps
        )


def length(direction: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in direction.values()]).norm()


def difference(
    generator: Generator, tensors: dict[str, Tensor], direction: dict[str, Tensor], step: float
) -> Tensor:
    """The slope of the weighted sum along a direction of ``tensors``, over ``step`` to either side."""
    ends = []
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


def _slopes_are_right(generator: Generator, plain: Tensor, weights: dict[str, Tensor], size: float) -> bool:
    """Move what is steered by ``size``; return whether the picture changes as its gradient says."""
    tensors = list(weights.values())
    with torch.no_grad():
        for index, tensor in enumerate(tensors):
            random = torch.Generator().manual_seed(index)
            tensor.copy_(size * torch.randn(tensor.shape, generator=random))
    images = picture(generator, WHOLE)
    assert (images - plain).abs().max() > 1e-3
    assert torch.equal(images.detach(), picture(generator))
    slopes = torch.autograd.grad(weighted(images), tensors)
    assert all(slope.isfinite().all() and slope.any() for slope in slopes)
    along = dict(zip(weights, slopes, strict=True))
    steps = (1e-3, 3e-4, 3e-3, 1e-4, 1e-2, 3e-2)
    found = (difference(generator, weights, along, step) / length(along) for step in steps)
    return any(abs(slope - 1) < 0.1 for slope in found)


def check_steering(generator: Generator, where: str) -> None:
    """Steering starts without effect; once it is moved, the picture is another, and gradients reach it."""
    plain = picture(generator)
    generator.add_steering([where], seed=0)
    weights = dict(generator.steering.named_parameters())
    with generator.steered():
        torch.testing.assert_close(picture(generator), plain, atol=2e-6, rtol=0)
        # After one move a small checkpoint may draw black and white, where single precision says nothing
        # about slopes, and after another not.
        assert any(_slopes_are_right(generator, plain, weights, size) for size in (0.1, 0.05))
    torch.testing.assert_close(picture(generator), plain, atol=2e-6, rtol=0)
