"""A `Watch` follows a bundle root: when CURRENT is replaced, it loads, verifies and swaps; what cannot be served leaves the old one."""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from ipr_engine._files import as_path
from ipr_engine._validate import number
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import CURRENT, find_folder
from ipr_engine.bundle.spec import MANIFEST
from ipr_engine.errors import InvalidInputError, IprError

if TYPE_CHECKING:
    from logging import Logger


class SwappingEngine(Protocol):
    """A `SwappingEngine` has what a watch needs of an engine: the bundle that serves, and a swap."""

    @property
    def bundle(self) -> Bundle: ...

    def swap(
        self,
        bundle: str | os.PathLike[str],
        *,
        allow_other_encoder: bool = ...,
        allow_fewer_candidates: bool = ...,
        allow_fewer_outputs: bool = ...,
    ) -> Bundle: ...


class WatchKeywords(TypedDict, total=False):
    """`WatchKeywords` are the keyword arguments of `Engine.watch`."""

    interval_s: float
    on_swap: Callable[[Bundle], object] | None
    on_error: Callable[[Exception], object] | None
    allow_other_encoder: bool
    allow_fewer_candidates: bool
    allow_fewer_outputs: bool


class Watch:
    """A `Watch` is a daemon thread that looks at root/CURRENT. `Engine.watch` makes it; it runs until `close()` or the engine's end.

    CURRENT counts as replaced when its file or its text is another than at the last look, so activating the same hash
    again, after a repair, is a new try. A bundle swapped in by hand stays until CURRENT is replaced. A process that
    forks begins to watch after the fork: threads do not come along.

    Attributes:
        root: the folder of bundles.
        last_error: what keeps CURRENT from being served; None while it is.
        swaps: how often this watch put another bundle in place.
    """

    def __init__(
        self,
        engine: SwappingEngine,
        root: str | os.PathLike[str],
        *,
        interval_s: float = 5.0,
        on_swap: Callable[[Bundle], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        **allow: bool,
    ) -> None:
        self.root = as_path(root, "root").absolute()
        if not self.root.is_dir() or (self.root / MANIFEST).exists():
            raise InvalidInputError(
                f"root: expected a folder of bundles with {CURRENT}, got {self.root}; check the path"
            )
        interval = number("interval_s", interval_s)
        if not 0.0 < interval <= threading.TIMEOUT_MAX:
            raise InvalidInputError(f"interval_s: expected seconds above 0, got {interval_s}")
        self.last_error: Exception | None = None
        self.swaps = 0
        self._engine = weakref.ref(engine)  # a watch keeps no engine alive
        self._allow = allow
        self._on_swap, self._on_error = on_swap, on_error
        self._seen: object = math.nan  # equal to nothing: the first look is always a new one
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._ends_with_engine = weakref.finalize(engine, self._stop.set)
        self._thread = threading.Thread(target=self._run, args=(interval,), name=f"ipr watch {self.root}", daemon=True)
        self.look()  # in this thread: the caller sees at once what CURRENT says
        self._thread.start()

    def look(self) -> bool:
        """Look at CURRENT now, in this thread; return whether another bundle was put in place. What fails is in last_error."""
        engine = self._engine()
        if engine is None or self._stop.is_set():
            return False
        with self._looking:
            before, swapped, failure = engine.bundle.hash, None, None
            try:
                pointer = _pointer(self.root / CURRENT)
                if pointer == self._seen:
                    return False
                self._seen = pointer
                folder = find_folder(self.root)
                if folder.name != before:
                    swapped = engine.swap(folder, **self._allow)
                    self.swaps += 1
            except Exception as error:  # whatever it is, the old bundle serves on and the next CURRENT gets its try
                failure = error
            self.last_error = failure
        if failure is not None:
            self._report(failure, before)
        elif swapped is not None:
            _logger().info("%s: bundle %s serves in place of %s", self.root, swapped.hash[:12], before[:12])
            self._call(self._on_swap, swapped)
        return swapped is not None

    def _report(self, error: Exception, serving: str) -> None:
        expected = isinstance(error, (IprError, OSError))
        _logger().error(
            "%s: %s is not served, bundle %s goes on: %s",
            self.root,
            CURRENT,
            serving[:12],
            error,
            exc_info=None if expected else error,
        )
        error.__traceback__ = None  # its frames hold the engine, and last_error outlives them
        self._call(self._on_error, error)

    def _call(self, callback: Callable[[Any], object] | None, what: object) -> None:
        if callback is None:
            return
        try:
            callback(what)
        except Exception:
            _logger().exception("%s: the callback %r failed; watching goes on", self.root, callback)

    def _run(self, interval: float) -> None:
        while not self._stop.wait(interval):
            self.look()

    @property
    def closed(self) -> bool:
        """Return whether nothing is followed any more: it was closed, or the engine is gone."""
        return self._stop.is_set()

    def close(self) -> None:
        """Stop watching; a swap that has begun is finished first. The engine serves on. May be called again."""
        self._stop.set()
        self._ends_with_engine.detach()  # it would hold this watch's event as long as the engine lives
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "watching"
        problem = f", last_error={self.last_error}" if self.last_error else ""
        return f"<Watch {self.root}, {state}, {self.swaps} swaps{problem}>"


def _pointer(path: Path) -> tuple[int, int, bytes] | None:
    """Return the inode, time and text of CURRENT, unequal once it has been replaced; None when there is none."""
    try:
        with open(path, "rb") as file:
            state = os.fstat(file.fileno())
            return state.st_ino, state.st_mtime_ns, file.read(256)
    except FileNotFoundError:
        return None


def _logger() -> Logger:
    from logging import getLogger  # 4 ms of an import that hardly any process needs

    return getLogger(__name__)
