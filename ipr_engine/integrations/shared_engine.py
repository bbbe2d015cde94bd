"""A `SharedEngine` is the one serving engine of a process for a bundle, which may be missing for a while."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ipr_engine.bundle.load import EMBEDDED
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.decision.decision import Decision
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.policy.policy import Policy

AGAIN_S = 10.0  # seconds between two tries to load a bundle that could not be loaded
# A path or an embedded bundle's name, an Engine, an AsyncEngine, or None for the embedded default.
BundleSource: TypeAlias = Any

_log = logging.getLogger(__name__)


class ServingEngine(Protocol):
    """A `ServingEngine` has what a seat needs of an `AsyncEngine`.

    Seats stand above everything that serves, and load it by name when the first of them is made (docs/design.md).
    """

    @property
    def engine(self) -> Any: ...

    @property
    def blocking(self) -> Any: ...

    @property
    def bundle(self) -> BundleSpec: ...

    def policy(self, **options: Any) -> Policy: ...

    async def route(self, prompt: Any, policy: Policy | None = None, **given: Any) -> Decision: ...

    def counters(self) -> Any: ...


class SharedEngine:
    """A `SharedEngine` loads a bundle when it is made, and again every ten seconds, in a thread, until that works.

    A bundle that is missing is no outage of a gateway: whoever asks meanwhile gets the error, and goes on without a decision.

    Attributes:
        error: what the last try raised; None once the engine serves.
    """

    def __init__(self, load: Callable[[], ServingEngine]) -> None:
        """Load at once, in the calling thread."""
        self.error: Exception | None = None
        self._load = load
        self._serving: ServingEngine | None = None
        self._trying = threading.Lock()
        self._tried_s = 0.0
        self._try()

    def engine(self) -> ServingEngine:
        """Return the engine that serves.

        Raises:
            IprError, OSError: what kept it from being loaded; it is tried again in a while.
        """
        error = self.error  # read first: it is taken back after the engine is in place
        serving = self._serving
        if serving is not None:
            return serving
        if time.monotonic() - self._tried_s > AGAIN_S:
            self._tried_s = time.monotonic()
            threading.Thread(target=self._try, name="ipr load", daemon=True).start()
        assert error is not None
        raise error.with_traceback(None)

    def _try(self) -> None:
        with self._trying:
            if self._serving is not None:
                return
            try:
                serving = self._load()
                serving.blocking.start()
            except (IprError, OSError) as error:
                self.error = error
                _log.error("no decision is made until this bundle can be loaded: %s", error)
            else:
                self._serving = serving
                self.error = None
            self._tried_s = time.monotonic()


# A gateway may execute a user's module once for each mention in its config: they share engines, and so memory and counters.
_shared: dict[tuple[str | None, float | None], SharedEngine] = {}
_sharing = threading.Lock()


def shared_engine(bundle: BundleSource, watch_s: float | None) -> SharedEngine:
    """Return the engine of a bundle: by path one for the whole process; an Engine or an AsyncEngine is served as it is.

    watch_s: seconds between two looks at CURRENT of the bundle root; None: the bundle stays.
    """
    if watch_s is not None and not isinstance(bundle, (str, os.PathLike)):
        raise InvalidInputError("watch_s: expected a bundle root as bundle=..., whose CURRENT is followed")
    faces = import_module("ipr_engine.serving.faces")
    if isinstance(bundle, faces.AsyncEngine):
        return SharedEngine(lambda: bundle)
    if isinstance(bundle, faces.Engine):
        return SharedEngine(lambda: faces.AsyncEngine(bundle))
    if bundle is not None and not isinstance(bundle, (str, os.PathLike)):
        raise InvalidInputError(f"bundle: expected a path, an Engine or an AsyncEngine, got {type(bundle).__name__}")
    path = None if bundle is None else Path(bundle)
    if path is not None and (path.exists() or str(path) not in EMBEDDED):
        path = path.absolute()  # a path means the same wherever the process goes; an embedded bundle's name is none

    def load() -> ServingEngine:
        serving: ServingEngine = faces.AsyncEngine.load(path)
        if path is not None and watch_s is not None:
            serving.engine.watch(path, interval_s=watch_s, allow_other_encoder=True)  # a seat takes texts alone
        return serving

    key = (None if path is None else str(path), watch_s)
    with _sharing:
        if key not in _shared:
            _shared[key] = SharedEngine(load)
        return _shared[key]
