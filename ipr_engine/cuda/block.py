"""A `Block` holds the arrays of one pass on the host and on the device, side by side, so that one copy takes them all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.cuda.lost_device import PURPOSE

ALIGN = 256  # of each array: what cudaMalloc aligns to, and more than any load needs
Fields = Mapping[str, tuple[tuple[int, ...], str]]  # name -> (shape, name of a torch dtype)


class MakesBuffers(Protocol):
    """A device that `MakesBuffers` gives torch tensors on it, and in pinned memory of the host: `Graphs` (graphs.py) do."""

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any: ...
    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any: ...
    def workspace(self, size: int) -> Any: ...


class Block:
    """A `Block` holds arrays of fixed shape in pinned memory of the host, and as many on the device.

    Attributes:
        graphs: what made them, of the owner of the pass's recording.
        host: name -> numpy view of the host's. pinned: the same as torch views. device: name -> torch view of the device's.
        words: (all of the host's, all of the device's), as int32: what one copy takes.
    """

    def __init__(self, graphs: MakesBuffers, fields: Fields) -> None:
        """Lay the arrays out, in their order; all are zero."""
        torch = need("torch", PURPOSE, "gpu")
        self.graphs = graphs
        begins: dict[str, tuple[int, int]] = {}  # name -> first byte, end
        at = 0
        for name, (shape, dtype) in fields.items():
            size = math.prod(shape) * getattr(torch, dtype).itemsize
            begins[name] = at, at + size
            at = -(-(at + size) // ALIGN) * ALIGN
        host, device = (make((max(at, ALIGN),), torch.uint8) for make in (graphs.host_buffer, graphs.buffer))

        def views(block: Any) -> dict[str, Any]:
            return {
                name: block[slice(*begins[name])].view(getattr(torch, dtype)).view(shape)
                for name, (shape, dtype) in fields.items()
            }

        self.pinned: dict[str, Any] = views(host)
        self.host: dict[str, NDArray[Any]] = {name: view.numpy() for name, view in self.pinned.items()}
        self.device: dict[str, Any] = views(device)
        self.words = host.view(torch.int32), device.view(torch.int32)

    def copy_in(self) -> None:
        """Enqueue the copy of all arrays to the device."""
        host, device = self.words
        device.copy_(host, non_blocking=True)
