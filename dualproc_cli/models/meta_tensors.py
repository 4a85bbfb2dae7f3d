"""Tensors without data that report the CPU as their device, and a ledger of the memory they would take.

A model with such parameters runs its real code, with its real autograd graph, and takes no memory. What is
computed from them has no data either; everything else (token ids, timesteps, masks) is computed as usual.
torch's ``FakeTensorMode`` does not allow that mixture: inside it every new tensor is fake, also token ids and
masks, and a VLM that counts its picture tokens raises ``DynamicOutputShapeException`` (torch 2.15, Idefics3).
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class NoDataError(RuntimeError):
    """Raised when code asks for the value of a tensor that has no data."""


class Ledger:
    """Counts the bytes that meta tensors would occupy.

    A storage is counted from its first tensor until the last one is gone, as an allocator would.

    Attributes:
        live: bytes now.
        peak: the most bytes at once since `forget_peak`.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    @contextmanager
    def counting(self) -> Iterator["Ledger"]:
        """Count the tensors that are made inside the block."""
        global _ledger
        before, _ledger = _ledger, self
        try:
            yield self
        finally:
            _ledger = before

    def forget_peak(self) -> None:
        """Reset `peak` to the bytes that are live now."""
        self.peak = self.live

    def enter(self, tensor: Tensor, share: float = 1.0) -> None:
        """Count ``share`` of the bytes of a tensor's storage, unless it is counted already."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = round(share * storage.nbytes())
        self.live += self._sizes[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._leave, key)

    def bytes_of(self, module: nn.Module) -> int:
        """Return the counted bytes of a module's meta parameters."""
        storages = {
            parameter.meta.untyped_storage()._cdata
            for parameter in module.parameters()
            if isinstance(parameter, MetaTensor)
        }
        return sum(self._sizes[storage] for storage in storages)

    def _leave(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


_ledger = Ledger()


class MetaTensor(Tensor):
    """A tensor without data that reports the CPU as its device.

    Attributes:
        meta: the tensor on the meta device.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor, share: float = 1.0) -> "MetaTensor":
        """Wrap ``meta`` and count ``share`` of its bytes: less than 1 for weights to be quantised."""
        made = Tensor._make_wrapper_subclass(
            cls,
            meta.shape,
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            device=torch.device("cpu"),
        )
        made.meta = meta
        _ledger.enter(meta, share)
        return made

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return f"MetaTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is aten._local_scalar_dense.default:
            raise NoDataError("its path depends on computed values")
        if func in INDEXING:
            args = (args[0], _positions(args[1]), *args[2:])
        if "device" in kwargs:
            kwargs["device"] = torch.device("meta")
        bare_args, bare_kwargs = tree_map_only(Tensor, _bare, (args, kwargs))
        out = func(*bare_args, **bare_kwargs)
        if func._schema.is_mutable and isinstance(args[0], MetaTensor):
            return args[0]
        return tree_map_only(Tensor, MetaTensor, out)


def _bare(tensor: Tensor) -> Tensor:
    return tensor.meta if isinstance(tensor, MetaTensor) else tensor.to("meta")


def _positions(indices: Any) -> list[Any]:
    """Replace real masks by the positions where they are true, since the meta device cannot count them."""
    found: list[Any] = []
    for index in indices:
        if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, MetaTensor):
            found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return found


def empty(like: Tensor) -> MetaTensor:
    """Return a meta tensor of the same shape and dtype."""
    return MetaTensor(torch.empty_like(_bare(like)))


def to_meta(module: nn.Module, dtype: torch.dtype, share: float = 1.0) -> nn.Module:
    """Make every parameter a meta tensor, in place, and return the module; tied parameters stay tied.

    Args:
        module: a module on any device, the meta device included.
        dtype: the precision of floating-point parameters.
        share: the fraction of the bytes of linear layers' weights that is counted.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        counted = share if isinstance(part, nn.Linear) else 1.0
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, MetaTensor):
                continue
            if parameter not in made:
                kept = dtype if parameter.is_floating_point() else None
                meta = torch.empty_like(parameter, device="meta", dtype=kept)
                tensor = MetaTensor(meta, counted if name == "weight" else 1.0)
                made[parameter] = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
            setattr(part, name, made[parameter])
    return module


@contextmanager
def saved_elsewhere() -> Iterator[None]:
    """Do not count what autograd saves inside the block, as if it were moved to main memory."""

    def pack(tensor: Tensor) -> Any:
        if not isinstance(tensor, MetaTensor) or isinstance(tensor, nn.Parameter):
            return tensor
        return tensor.size(), tensor.stride(), tensor.dtype

    def unpack(packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        size, stride, dtype = packed
        return MetaTensor(torch.empty_strided(size, stride, dtype=dtype, device="meta"))

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
