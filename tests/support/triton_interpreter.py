"""This module sets up Triton's interpreter for the tests and the benchmarks' dry runs: import it before anything that imports triton."""

from __future__ import annotations

import os
import sys
from typing import Any


def choose() -> None:
    """Choose the interpreter, unless triton is imported already, and mend it where its version needs that."""
    if "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    import triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        _mend()


def _mend() -> None:
    """Let the interpreter of triton 3.6 count with numpy 2.4, whose `int()` no longer takes an array of one element."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor  # noqa: SLF001  the one place where a tensor's operators are set

    def patch_and_mend(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_and_mend  # noqa: SLF001
