"""A `Walk` tells the files of ipr_engine that run during a call, counted by a profiler hook in every thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ipr_engine

PACKAGE = Path(ipr_engine.__file__).resolve().parent


class Walk:
    """A `Walk` holds the functions of ipr_engine that a profiler hook has seen called.

    The bodies of modules that are imported meanwhile do not count, nor do files outside of the package.

    Attributes:
        functions: file, relative to the package -> names of the functions that ran there, in the order of their first call.
    """

    def __init__(self) -> None:
        self.functions: dict[str, list[str]] = {}
        self._inside: dict[str, str | None] = {}
        self._over = False

    @property
    def files(self) -> list[str]:
        return sorted(self.functions)

    def clear(self) -> None:
        """Forget what ran so far: a warm-up, say."""
        self.functions = {}

    def stop(self) -> None:
        """Count nothing from now on."""
        self._over = True

    def hook(self, frame: FrameType, event: str, _: Any) -> None:
        """Take one event, as `sys.setprofile` hands it over."""
        code = frame.f_code
        if self._over or event != "call" or code.co_name == "<module>":
            return
        if code.co_filename not in self._inside:
            path = Path(code.co_filename).resolve()
            within = path.is_relative_to(PACKAGE)
            self._inside[code.co_filename] = path.relative_to(PACKAGE).as_posix() if within else None
        file = self._inside[code.co_filename]
        if file is not None:
            names = self.functions.setdefault(file, [])
            if code.co_qualname not in names:
                names.append(code.co_qualname)

    def __str__(self) -> str:
        lines = [f"{file}: {', '.join(names)}" for file, names in sorted(self.functions.items())]
        return "\n".join([f"{len(lines)} files", *lines])


@contextmanager
def recorded_walk() -> Iterator[Walk]:
    """Record this thread and those that begin inside of the block, until it ends.

    >>> with recorded_walk() as walk:
    ...     warm_up()
    ...     walk.clear()
    ...     call()
    >>> len(walk.files)
    """
    walk = Walk()
    here, threads = sys.getprofile(), threading.getprofile()
    threading.setprofile(walk.hook)
    sys.setprofile(walk.hook)
    try:
        yield walk
    finally:
        sys.setprofile(here)
        threading.setprofile(threads)
