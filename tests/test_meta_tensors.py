"""Models without data run their real code, and a ledger counts what an allocator would."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dualproc_cli.models.meta_tensors import Ledger, MetaTensor, NoDataError, empty, saved_elsewhere, to_meta

CPU = torch.device("cpu")


@pytest.fixture
def ledger():
    with Ledger().counting() as found:
        yield found


def test_ledger_counts_what_an_allocator_would(ledger):
    model = to_meta(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)), torch.float32)
    weights = 4 * (8 * 16 + 16 + 16 * 4 + 4)
    assert ledger.live == ledger.bytes_of(model) == weights
    out = model(torch.zeros(32, 8))
    # GELU keeps its input and the last layer its own.
    assert ledger.live - weights == 4 * 32 * (16 + 16 + 4)
    assert isinstance(out, MetaTensor)
    assert out.device == CPU
    out.backward(empty(out))
    del out
    assert ledger.live == 2 * weights  # gradients
    assert ledger.peak > ledger.live


def test_views_and_tied_weights_are_counted_once(ledger):
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    to_meta(model, torch.bfloat16)
    assert model[1].weight is model[0].weight
    model[0].weight.T.reshape(-1)[:3].view(1, 3)
    assert ledger.live == ledger.bytes_of(model) == 10 * 4 * 2
    assert ledger.peak == 2 * 10 * 4 * 2, "the transposed copy, while it lived"


def test_real_tensors_are_computed_and_values_of_meta_tensors_are_refused(ledger):
    tensor = MetaTensor(torch.empty(2, 3, device="meta"))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert tensor[mask].shape == (3,)
    with pytest.raises(NoDataError):
        tensor.sum().item()


def test_what_is_saved_elsewhere_is_not_counted(ledger):
    weight = nn.Parameter(MetaTensor(torch.empty(64, 64, device="meta")))
    start = ledger.live
    with saved_elsewhere():
        out = F.gelu(torch.zeros(8, 64) @ weight).square().sum()
    assert ledger.live - start == 4
    out.backward()
    assert weight.grad.shape == (64, 64)
