"""The switch to deterministic kernels."""

import pytest
import torch

from dualproc_cli.device import deterministic


def switches():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_deterministic_kernels_without_filled_buffers():
    before = switches()
    with deterministic():
        assert switches() == (True, True, False)
    assert switches() == before == (False, False, True)


def test_what_was_set_before_is_restored_after_an_exception():
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(ZeroDivisionError), deterministic():
            1 / 0  # noqa: B018
        assert switches() == (True, False, True)
    finally:
        torch.use_deterministic_algorithms(False)
