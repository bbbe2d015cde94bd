"""This module sets up Triton's interpreter for the tests and the benchmarks' dry runs: import it before anything that imports triton."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def dots_in_order() -> Iterator[None]:
    """Let tl.dot add up its products one after the other, as a matrix instruction does for every size of a tile.

    The interpreter calls numpy's matmul, whose order depends on the shape. Without the interpreter this changes nothing.
    """
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    before = builder.create_dot

    def in_order(self: Any, a: Any, b: Any, d: Any, *_: Any) -> Any:
        sums = d.data.copy()  # (rows, cols), of the type of the sums
        for k in range(a.data.shape[1]):
            sums += a.data[:, k, None].astype(sums.dtype) * b.data[None, k].astype(sums.dtype)
        return interpreter.TensorHandle(sums, d.dtype.scalar)

    builder.create_dot = in_order
    try:
        yield
    finally:
        builder.create_dot = before
