"""`span` names ranges for a profiler: tokenize, copy, encode, decide. They are off by default, and cost an empty context then.

    ipr_engine._profiling.enable()              # NVTX, for nsys and ncu; or IPR_NVTX=1 in the environment; needs torch with CUDA
    ipr_engine._profiling.enable("profiler")    # the same ranges in a trace of torch.profiler (Kineto, with CUPTI on a GPU)

Work inside a CUDA graph shows its ranges when it is captured, not when it is replayed (benchmarks/profile/README.md).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import BackendUnavailableError, InvalidInputError

NAMES = ("tokenize", "copy", "encode", "decide")
_OFF: AbstractContextManager[None] = nullcontext()
_nvtx: Any = None  # torch.cuda.nvtx, or _Recorded under torch.profiler, which does not see NVTX
MARKERS = ("nvtx", "profiler")


def span(name: str) -> AbstractContextManager[Any]:
    """Open a range around the block; `name` is one of NAMES."""
    return _OFF if _nvtx is None else _nvtx.range(name)


def marks_ranges() -> bool:
    """Return whether ranges are marked now."""
    return _nvtx is not None


class _Recorded:
    """A `_Recorded` names torch.profiler's ranges `range`, as NVTX has them."""

    def __init__(self, torch: Any) -> None:
        self.range = torch.profiler.record_function


def enable(marker: str = "nvtx") -> None:
    """Mark the ranges of this process from now on.

    Args:
        marker: "nvtx", which nsys and ncu show, or "profiler", which torch.profiler does.
    Raises:
        InvalidInputError: another marker.
        BackendUnavailableError: torch is missing, or built without CUDA, whose NVTX this is.
    """
    global _nvtx
    if marker not in MARKERS:
        raise InvalidInputError(f"marker: expected one of {', '.join(MARKERS)}, got {marker!r}")
    torch = need("torch", "ranges for a profiler", "gpu")
    if marker == "profiler":
        _nvtx = _Recorded(torch)
        return
    try:
        torch.cuda.nvtx.mark("ipr_engine")
    except RuntimeError as error:
        raise BackendUnavailableError(f"NVTX ranges need torch built with CUDA: {error}") from error
    _nvtx = torch.cuda.nvtx


def disable() -> None:
    """Mark no ranges from now on."""
    global _nvtx
    _nvtx = None


def enable_from_environment() -> None:
    """Enable NVTX ranges where IPR_NVTX is set to anything but 0; called when something is planned for a GPU."""
    if os.environ.get("IPR_NVTX", "0") not in ("", "0"):
        enable()
