"""Several arrays in one block, on the host and on the device, so that one copy takes them all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.cuda.recording import PURPOSE, Graphs

ALIGN = 256  # of each array: what cudaMalloc aligns to, and more than any load needs


class Block:
    """Fields of fixed shape in one host buffer and one device buffer.

    Attributes:
        host: name -> numpy view of the host's. device: name -> torch view of the device's.
    """

    def __init__(self, graphs: Graphs, fields: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """fields: name -> (shape, torch dtype's name), in the order they lie in."""
        torch = need("torch", PURPOSE, "gpu")
        begins: dict[str, tuple[int, int]] = {}
        at = 0
        for name, (shape, dtype) in fields.items():
            size = math.prod(shape) * getattr(torch, dtype).itemsize
            begins[name] = at, at + size
            at = -(-(at + size) // ALIGN) * ALIGN
        self._host, self._device = (make((max(at, 1),), torch.uint8) for make in (graphs.host_buffer, graphs.buffer))

        def views(block: Any) -> dict[str, Any]:
            return {
                name: block[slice(*begins[name])].view(getattr(torch, dtype)).view(shape)
                for name, (shape, dtype) in fields.items()
            }

        self.host: dict[str, NDArray[Any]] = {name: view.numpy() for name, view in views(self._host).items()}
        self.device: dict[str, Any] = views(self._device)

    def copy_in(self) -> None:
        """Enqueue the copy to the device."""
        self._device.copy_(self._host, non_blocking=True)
