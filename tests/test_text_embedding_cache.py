"""The text-embedding cache: rows of any inputs, encoded once, and what is kept of them."""

import copy
import gc

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from dualproc_cli.generator.text_embedding_cache import cache_text_embeddings


class Encoder(nn.Module):
    """Adds up what it is given: ids [B, L] and positions [3, B, L]."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return ids + position_ids.sum(0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_positions_of_three_axes_are_rows_too(count):
    ids = torch.arange(count * 5).view(count, 5)
    positions = torch.arange(3 * count * 5).view(3, count, 5)
    encoder = Encoder()
    expected = encoder(ids, position_ids=positions)
    cache_text_embeddings(encoder)
    encoder.calls = 0
    for _ in range(2):
        assert torch.equal(encoder(ids, position_ids=positions), expected)
    assert encoder.calls == count


class Reads:
    """Reads of a text encoder's output what a pipeline may read, in every way that one may."""

    STABLE = staticmethod(lambda output: [output[0], output.hidden_states[-2]])
    ALL = staticmethod(
        lambda output: [
            *output.to_tuple()[:2],
            output["pooler_output"],
            *output.hidden_states,
            *output[2][1:],
        ]
    )


@pytest.fixture
def clip():
    """A CLIP of four layers, its forward counted, with the cache; and one like it without."""
    config = CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2
    )
    torch.manual_seed(0)
    plain = CLIPTextModel(config).eval()
    encoder = copy.deepcopy(plain)
    calls = []
    forward = encoder.forward
    encoder.forward = lambda *args, **kwargs: (calls.append(1), forward(*args, **kwargs))[1]
    cache_text_embeddings(encoder)
    return encoder, plain, calls


def held():
    """Return the number of bytes of all float tensors, which are embeddings or weights."""
    gc.collect()
    return sum(
        found.untyped_storage().nbytes()
        for found in gc.get_objects()
        if type(found) is torch.Tensor and found.is_floating_point()
    )


def test_only_what_is_read_is_kept_and_each_prompt_is_encoded_once(clip):
    encoder, plain, calls = clip
    ids = torch.arange(36).remainder(20).view(4, 9)

    def ask(model, rows, reads):
        return reads(model(ids[rows], output_hidden_states=True))

    before = held()
    for rows in ([0, 1], [2, 3], [1, 2], [3]):
        for one, other in zip(ask(encoder, rows, Reads.STABLE), ask(plain, rows, Reads.STABLE), strict=True):
            torch.testing.assert_close(one, other.detach())
    assert len(calls) == 4
    del one, other
    embedding = 9 * 16 * 4  # bytes of one layer of a prompt
    assert held() - before == 4 * 2 * embedding, "the last hidden state and one layer, of seven tensors"


def test_what_is_read_later_is_encoded_again(clip):
    encoder, plain, calls = clip
    ids = torch.arange(18).view(2, 9)
    for reads, count in (
        (Reads.STABLE, 2),
        (Reads.STABLE, 2),
        (Reads.ALL, 4),
        (Reads.ALL, 4),
        (Reads.STABLE, 4),
    ):
        output = encoder(ids, output_hidden_states=True)
        assert isinstance(output, BaseModelOutputWithPooling)
        expected = reads(plain(ids, output_hidden_states=True))
        for one, other in zip(reads(output), expected, strict=True):
            torch.testing.assert_close(one, other.detach())
        assert len(calls) == count
    assert output.attentions is None
    assert "attentions" not in output
    assert isinstance(output.hidden_states, tuple)
    # As what steers an output changes it.
    changed = type(output)(
        hidden_states=type(output.hidden_states)([2 * one for one in output.hidden_states])
    )
    assert torch.equal(changed.hidden_states[3], 2 * output.hidden_states[3])
    assert len(output.hidden_states) == 5
    assert torch.equal(dict(**output)["pooler_output"], output.pooler_output)
