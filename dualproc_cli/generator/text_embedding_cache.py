"""Text encoders that encode each prompt once, and keep of it what the pipeline reads."""

import functools
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from dualproc_cli.generator.watched_output import Part, parts_of, watched_output


def cache_text_embeddings(encoder: nn.Module) -> None:
    """Make a frozen text encoder keep its outputs, prompt by prompt.

    The cache sits below the pipeline's ``encode_prompt``, whose outputs differ from pipeline to pipeline.
    Here a batch of prompts is a batch of rows of token ids [B, L] and masks [B, L], and each row's output is
    kept under the row's own bytes. So each prompt costs one forward pass whatever batches it is in, and its
    embedding does not depend on the batch. Pipelines that pad to the longest prompt of a batch give a prompt
    rows of several lengths, which are kept apart: some read what an encoder returns for padding, and what it
    returns for the other tokens is not the same to the last bit. Other calls reach the encoder unchanged.

    Encoders return far more than a pipeline reads, such as the hidden states of all layers. Only those parts
    are kept that were read before; if another is read later, the prompt is encoded again.

    The outputs stay on the inputs' device as long as the encoder exists, even if the encoder is moved.
    """
    forward = encoder.forward
    memory: dict[Hashable, _Row] = {}
    read: set[Part] = set()

    @functools.wraps(forward)
    def cached(*args: Any, **kwargs: Any) -> Any:
        inputs: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        count = _rows(inputs)
        if count is None:
            return forward(*args, **kwargs)
        for known in memory.values():  # what was encoded last has been read by now
            known.keep(read)
        rows = []
        for row in range(count):
            own = [(name, _row(value, row)) for name, value in inputs]
            key = tuple((name, _key(value)) for name, value in own)
            if key not in memory:
                memory[key] = _Row(functools.partial(_encode, encoder, forward, own))
            rows.append(memory[key])
        kind = rows[0].kind
        if kind is None:  # no mapping: all of it is kept
            return _batch([row.output for row in rows])

        def part(which: Part) -> Tensor:
            read.add(which)
            return torch.cat([row.part(which) for row in rows])

        return watched_output(kind, rows[0].lengths, part)

    encoder.forward = cached


class _Row:
    """The output of one prompt.

    Attributes:
        kind: the class of the output; None if it is not a mapping of tensors and of tuples of tensors.
        lengths: the names of its entries, with the lengths of tuples; None for tensors.
        output: the output itself, if it is not such a mapping.
    """

    def __init__(self, encode: Any) -> None:
        self._encode = encode
        output = encode()
        self._parts = parts_of(output)
        self.kind: type | None = None if self._parts is None else type(output)
        self.output = output if self._parts is None else None
        self.lengths: dict[str, int | None] = {}
        for name, index in self._parts or ():
            self.lengths[name] = None if index is None else index + 1

    def keep(self, read: set[Part]) -> None:
        """Forget all parts but those in ``read``, if there are any."""
        if self._parts is not None and read and self._parts.keys() - read:
            self._parts = {which: value for which, value in self._parts.items() if which in read}

    def part(self, which: Part) -> Tensor:
        """Return a part, [1, ...]; if it was forgotten, the prompt is encoded again."""
        if self._parts is None or which not in self._parts:
            self._parts = parts_of(self._encode()) or {}
        return self._parts[which]


def _encode(encoder: nn.Module, forward: Any, inputs: list[tuple[int | str, Any]]) -> Any:
    """Call ``forward`` on the encoder's device without graph; return its output on the inputs' device."""
    away = next(value.device for _, value in inputs if isinstance(value, Tensor))
    home = next((parameter.device for parameter in encoder.parameters()), away)
    moved = send_to_device(inputs, home)
    with torch.no_grad():
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
