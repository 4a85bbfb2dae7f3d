"""The text-embedding cache, with inputs whose first dimension is not the batch."""

import pytest
import torch
from torch import nn

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
