"""Teaching: what it minimises, and which outputs of the denoiser's blocks it compares."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dualproc_cli.compiler import compile_loss
from dualproc_cli.drawing import validation_seeds
from dualproc_cli.generator import load_generator
from dualproc_cli.generator.blocks import WATCHED, block_outputs
from dualproc_cli.learning.learner import Learner
from dualproc_cli.learning.phase import Phase, drawing_steered
from dualproc_cli.learning.phases import phases_of
from dualproc_cli.learning.teach import EXAMPLES, TRIED
from dualproc_cli.spec import load_spec
from dualproc_cli.vlm import load_vlm

CPU, RNG = torch.device("cpu"), torch.Generator()


class Denoiser(nn.Module):
    """Twenty blocks, each of which adds one to a state, and returns it beside an index."""

    class Block(nn.Module):
        def forward(self, state):
            return state + 1, (torch.tensor(3), None)

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(self.Block() for _ in range(20))

    def forward(self, state):
        for block in self.blocks:
            state = block(state)[0]
        return state


def test_some_blocks_are_watched_among_them_the_last():
    denoiser, state = Denoiser(), torch.zeros(1, requires_grad=True)
    with block_outputs(denoiser) as outputs:
        denoiser(state)
    assert [value.item() for value in outputs.tensors] == [2, 5, 7, 10, 12, 15, 17, 20]
    denoiser(state)
    assert len(outputs.calls) == WATCHED  # nothing is kept once the block has ended


def test_those_calls_are_compared_that_recorded_a_gradient():
    denoiser = Denoiser()
    with block_outputs(denoiser) as learned:
        denoiser(torch.zeros(1))
        denoiser(torch.zeros(1, requires_grad=True))
    with block_outputs(denoiser, learned.calls) as taught:
        denoiser(torch.zeros(1))
        denoiser(torch.ones(1))
    assert list(learned.calls) == list(taught.calls) == list(range(WATCHED, 2 * WATCHED))
    assert [one - other for one, other in zip(taught.tensors, learned.tensors, strict=True)] == [1] * WATCHED


@pytest.fixture
def teach(small_spec, tmp_path):
    """The phase, with steering that has an effect and an adapter that has none yet."""

    def make(where):
        learn = {"where": where, "adapter": {"rank": 2}, "steps": 1, "validation_pictures": 0}
        loaded = load_spec(small_spec(tmp_path, {"learn": learn}))
        generator = load_generator(loaded.generator, CPU)
        generator.add_adapter(loaded.spec.learn.adapter, 0)
        generator.add_steering(loaded.spec.steered, 0)
        for parameter in generator.steering.parameters():
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(parameter)))
        criterion = compile_loss(loaded, load_vlm(loaded.spec.vlm, CPU), 64, 64)
        return phases_of(loaded.spec, generator, criterion)[1], generator, loaded.spec.prompts.train

    return make


@pytest.mark.parametrize("where", [["noise"], ["conditioning"], ["colors"], ["noise", "colors"]])
def test_nothing_is_learned_at_first(teach, where):
    phase, _, prompts = teach(where)
    examples = [
        (prompts[index % len(prompts)], seed) for index, seed in enumerate(validation_seeds(EXAMPLES))
    ]
    losses = [phase.loss([prompt], [seed], RNG).loss.item() for prompt, seed in examples]
    assert sum(losses) / len(losses) == pytest.approx(1, rel=1e-4)


def test_all_is_learned_where_steering_does_nothing(teach):
    phase, generator, prompts = teach(["noise"])
    for parameter in generator.steering.parameters():
        parameter.data.zero_()
    assert phase.loss(prompts[:1], [3], RNG).loss.item() == 0


def test_a_steered_picture_is_worth_its_least_likely_answer(teach):
    phase, generator, prompts = teach(["noise"])
    with drawing_steered(generator), torch.no_grad():
        report = phase.criterion(generator.render(prompts[:1] * 3, [1, 2, 3]))
    least = torch.stack(list(report.probabilities.values())).amin(0)
    phase._all_right = False
    torch.testing.assert_close(phase.worth(prompts[:1] * 3, [1, 2, 3]), least)
    assert phase.worth(prompts[:1], [1]).requires_grad is False


@pytest.mark.parametrize(("wrong", "asks"), [(0, False), (1, True)])
def test_the_vlm_is_asked_only_where_steering_is_not_always_right(teach, monkeypatch, wrong, asks):
    phase, _, prompts = teach(["noise"])
    asked = []

    def least_likely(prompts, seeds):
        first = len(asked)
        asked.extend(seeds)
        return torch.tensor([0.1 if first + row < wrong else 0.9 for row in range(len(seeds))])

    monkeypatch.setattr(phase, "_least_likely", least_likely)
    assert (phase.worth(prompts[:1] * 2, [1, 2]) is not None) == asks
    assert len(asked) == TRIED + 2 * asks
    phase.worth(prompts[:1] * 2, [3, 4])
    assert len(asked) == TRIED + 4 * asks, "what was found once holds"


@pytest.mark.parametrize(
    ("worth", "kept"),
    [
        ([0.9, 0.1, 0.5, 0.44], [0, 2]),
        ([0.02, 0.01, 0.001, 0.0], [0, 1]),  # where none is right, the best are learned from
        ([0.0] * 4, [0, 1, 2, 3]),
        ([float("nan"), 0.1, 0.1, 0.1], [0, 1, 2, 3]),  # the loss will say what is wrong
        (None, [0, 1, 2, 3]),
    ],
)
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_pictures_that_are_far_from_right_are_not_learned_from(worth, kept, micro_batch):
    class Known(Phase):
        def worth(self, prompts, seeds):
            return None if worth is None else torch.tensor([worth[seed] for seed in seeds])

        def loss(self, prompts, seeds, rng): ...

    learner = object.__new__(Learner)
    learner.phase = object.__new__(Known)
    learner.spec = SimpleNamespace(learn=SimpleNamespace(micro_batch=micro_batch))
    learner.generator = SimpleNamespace(at_once=min)
    assert learner._choose(list("abcd"), [0, 1, 2, 3]) == (["abcd"[row] for row in kept], kept)
