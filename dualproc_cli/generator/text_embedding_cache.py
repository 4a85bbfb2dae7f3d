"""Text encoders that encode each prompt once."""

import functools
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn


def cache_text_embeddings(encoder: nn.Module) -> None:
    """Make a frozen text encoder keep its outputs, prompt by prompt.

    The cache sits below the pipeline's ``encode_prompt``, whose outputs differ from pipeline to pipeline.
    Here a batch of prompts is a batch of rows of token ids [B, L] and masks [B, L], and each row's output is
    kept under the row's own bytes. So each prompt costs one forward pass whatever batches it is in, and its
    embedding does not depend on the batch. Other calls reach the encoder unchanged.

    The outputs stay on the inputs' device as long as the encoder exists, even if the encoder is moved.
    """
    forward = encoder.forward
    memory: dict[Hashable, Any] = {}

    @functools.wraps(forward)
    def cached(*args: Any, **kwargs: Any) -> Any:
        inputs: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        count = _rows(inputs)
        if count is None:
            return forward(*args, **kwargs)
        outputs = []
        for row in range(count):
            own = [(name, _row(value, row)) for name, value in inputs]
            key = tuple((name, _key(value)) for name, value in own)
            if key not in memory:
                with torch.no_grad():
                    memory[key] = _encode(encoder, forward, own)
            outputs.append(memory[key])
        return _batch(outputs)

    encoder.forward = cached


def _encode(encoder: nn.Module, forward: Any, inputs: list[tuple[int | str, Any]]) -> Any:
    """Call ``forward`` on the encoder's device, and return its output on the inputs' device."""
    away = next(value.device for _, value in inputs if isinstance(value, Tensor))
    home = next((parameter.device for parameter in encoder.parameters()), away)
    moved = send_to_device(inputs, home)
    output = forward(
        *(value for name, value in moved if isinstance(name, int)),
        **{name: value for name, value in moved if isinstance(name, str)},
    )
    return send_to_device(output, away)


def _rows(inputs: list[tuple[int | str, Any]]) -> int | None:
    """Return the number of rows that all input tensors share, or None if they are not a batch of rows."""
    tensors = [value for _, value in inputs if isinstance(value, Tensor)]
    plain = all(value is None or isinstance(value, (Tensor, bool, int, float, str)) for _, value in inputs)
    sizes = {tensor.shape[_batch_dimension(tensor)] if tensor.ndim else None for tensor in tensors}
    return sizes.pop() if plain and len(sizes) == 1 else None


def _row(value: Any, row: int) -> Any:
    return value.narrow(_batch_dimension(value), row, 1) if isinstance(value, Tensor) else value


def _batch_dimension(tensor: Tensor) -> int:
    # Position ids of vision-language models are [3, B, L]: time, height and width.
    return 1 if tensor.ndim == 3 and tensor.dtype == torch.long else 0


def _key(value: Any) -> Hashable:
    if not isinstance(value, Tensor):
        return value
    return value.dtype, value.shape, value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _batch(rows: list[Any]) -> Any:
    """Stack the outputs of single rows: tensors [1, ...] become [B, ...], inside tuples and mappings too."""
    first = rows[0]
    if isinstance(first, Tensor):
        return torch.cat(rows)
    if isinstance(first, Mapping):
        return type(first)(**{name: _batch([row[name] for row in rows]) for name in first})
    if isinstance(first, (tuple, list)):
        return type(first)(_batch(list(values)) for values in zip(*rows, strict=True))
    return None  # such as a decoder's key-value cache, which pipelines do not read
