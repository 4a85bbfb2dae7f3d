"""A step whose pictures are drawn in parts has the loss and the gradient of the whole batch."""

import pytest
import torch
from small_generator import with_adapter

from dualproc_cli.compiler import compile_loss
from dualproc_cli.generator import load_generator
from dualproc_cli.jitter import MicroBatchRandom, jittered
from dualproc_cli.learning.learner import Learner
from dualproc_cli.memory.strategies import named
from dualproc_cli.spec import JitterSpec, load_spec
from dualproc_cli.vlm import load_vlm

CPU = torch.device("cpu")
JITTER = {"noise": 0.02, "shift": 0.1, "zoom": 0.1, "blur": 1.0, "views": 2}


@pytest.fixture(scope="module")
def models(small_spec, tmp_path_factory):
    """The loaded spec with everything that is random or a mean over pictures, and its models."""
    changes = {"steps": 2, "batch_size": 5, "where": ["noise", "colors", "weights"], "jitter": JITTER}
    learn = {"adapter": {"rank": 2}, "teach": {"steps": 1, "batch_size": 5}, "seed": 3}
    learn |= {"keep": {"picture": 1.0, "structure": 1.0, "smoothness": 1.0}, "validation_pictures": 0}
    path = small_spec(tmp_path_factory.mktemp("spec"), {"learn": learn | changes})
    loaded = load_spec(path)
    generator = with_adapter(load_generator(loaded.generator, CPU), scale=5.0)
    generator.add_steering(loaded.spec.steered, 0)
    for parameter in generator.steering.parameters():
        parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(parameter)))
    return path, generator, compile_loss(loaded, load_vlm(loaded.spec.vlm, CPU), 64, 64)


def step(models, phase, *changes, strategy=None):
    """Return what a step of a phase measures, the gradient, and the state of its random numbers."""
    path, generator, criterion = models
    spec = load_spec(path, changes).spec
    generator.micro_batch = int
    for one in named([strategy] if strategy else []):
        one.apply(generator, ())
    criterion.learn = spec.learn
    learner = Learner(spec, generator, criterion)
    learner._enter(next(one for one in learner.phases if one.name == phase))
    prompts, seeds = learner._draw(5)
    learner._optimizer.zero_grad()
    found = learner._differentiate(prompts, seeds)
    gradients = [parameter.grad for parameter in learner.phase.parameters()]
    return found, gradients, learner._rng.get_state()


@pytest.mark.parametrize("phase", ["steer", "teach", "weights"])
@pytest.mark.parametrize(
    ("changes", "strategy"),
    [
        (["learn.micro_batch=1"], None),
        (["learn.micro_batch=2"], None),
        ([], "half-batches"),
        ([], "single-pictures"),
    ],
)
def test_a_step_in_parts_is_the_step_of_the_whole(models, phase, changes, strategy):
    whole, expected, after = step(models, phase)
    parts, gradients, state = step(models, phase, *changes, strategy=strategy)
    assert torch.equal(state, after)
    for one, other in zip(expected, gradients, strict=True):
        assert (one - other).abs().max() <= 1e-5 * one.abs().max()
    assert sum(gradient.abs().sum() for gradient in expected) > 0
    assert parts.losses.keys() == whole.losses.keys()
    for name, loss in whole.losses.items():
        torch.testing.assert_close(parts.losses[name], loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(parts.probabilities[name], whole.probabilities[name], rtol=1e-5, atol=1e-6)
    for name in ("loss", "keep"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name).detach(), rtol=1e-5, atol=1e-6)


def test_a_micro_batch_is_jittered_as_in_the_whole_batch():
    images, jitter = torch.rand(10, 3, 16, 16), JitterSpec(**JITTER)  # two views of five pictures
    rng = torch.Generator().manual_seed(1)
    state = rng.get_state()
    whole = jittered(images, jitter, rng).view(2, 5, 3, 16, 16)
    for rows in (range(2), range(2, 4), range(4, 5)):
        own = images.view(2, 5, 3, 16, 16)[:, rows].flatten(0, 1)
        part = MicroBatchRandom.part(state, rows, 5)
        torch.testing.assert_close(
            jittered(own, jitter, part), whole[:, rows].flatten(0, 1), rtol=0, atol=1e-6
        )
        assert torch.equal(part.get_state(), rng.get_state())
