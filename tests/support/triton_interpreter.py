"""This module sets up Triton's interpreter for the tests and the benchmarks' dry runs: import it before anything that imports triton."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


def choose() -> None:
    """Choose the interpreter, unless triton is imported already; let it set up less, and mend it where its version needs that."""
    if "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    import triton

    _set_up_once_a_launch()
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 9):
        _mend()


def _set_up_once_a_launch() -> None:
    """Let a launch put the interpreter's functions into Triton's language once.

    As it comes, it goes through the language again at every call of a function in a kernel: a third of a launch's time. What is
    computed is the same.
    """
    from triton import language
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__  # noqa: SLF001  where it is done
    done: set[tuple[bool, ...]] = set()

    def patch_once(function: Any) -> Any:
        seen = {id(value) for value in function.__globals__.values()}
        modules = tuple(id(module) in seen for module in (language, language.core))  # those that `patch` goes through
        if modules in done:
            return None  # a call in a kernel, which takes no scope: the launch's own is in force
        done.add(modules)
        return patch(function)

    def launch_anew(self: Any, *arguments: Any, **named: Any) -> Any:
        done.clear()
        return launch(self, *arguments, **named)

    interpreter._patch_lang, interpreter.GridExecutor.__call__ = patch_once, launch_anew  # noqa: SLF001


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
        left = np.ascontiguousarray(a.data.T, dtype=sums.dtype)[:, :, None]  # (depth, rows, 1)
        right, products = np.ascontiguousarray(b.data, dtype=sums.dtype), np.empty_like(sums)
        for column, row in zip(left, right, strict=True):
            sums += np.multiply(column, row, out=products)
        return interpreter.TensorHandle(sums, d.dtype.scalar)

    builder.create_dot = in_order
    try:
        yield
    finally:
        builder.create_dot = before
