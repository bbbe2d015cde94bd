"""The one thread that makes sums repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ipr_engine._extras import need


@contextmanager
def one_thread() -> Iterator[None]:
    """Run numpy's and torch's sums in one thread: their order, hence every last bit, then repeats on one machine."""
    with need("threadpoolctl", "a repeatable fit").threadpool_limits(limits=1):
        yield
