"""Named ranges for a profiler: tokenize, copy, encode, decide. Off by default, and then a call of an empty context.

    ipr_engine.profiling.enable()      # or IPR_NVTX=1 in the environment; needs torch with CUDA

What is inside a CUDA graph shows its ranges when it is captured, not when it is replayed (benchmarks/profile/README.md).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ipr_engine.errors import BackendUnavailableError
from ipr_engine.extras import need

NAMES = ("tokenize", "copy", "encode", "decide")
_OFF: AbstractContextManager[None] = nullcontext()
_nvtx: Any = None


def span(name: str) -> AbstractContextManager[Any]:
    """A range around what runs inside; one of NAMES."""
    return _OFF if _nvtx is None else _nvtx.range(name)


def enable() -> None:
    """Mark ranges from now on.

    Raises:
        BackendUnavailableError: torch is missing or built without CUDA, whose NVTX this is.
    """
    global _nvtx
    torch = need("torch", "NVTX ranges", "gpu")
    try:
        torch.cuda.nvtx.mark("ipr_engine")
    except RuntimeError as error:
        raise BackendUnavailableError(f"NVTX ranges need torch built with CUDA: {error}") from error
    _nvtx = torch.cuda.nvtx


def disable() -> None:
    """Mark none from now on."""
    global _nvtx
    _nvtx = None


def enable_from_environment() -> None:
    """`enable` where IPR_NVTX is set to anything but 0; called when something is planned for a GPU."""
    if os.environ.get("IPR_NVTX", "0") not in ("", "0"):
        enable()
