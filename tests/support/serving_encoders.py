"""Encoders for the serving tests give the static tier's rows through Python, so that they queue; some go wrong on request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ipr_engine import Bundle, Engine
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from tests.support.bundles import make_siblings

PROMPTS = [
    "why",
    "explain the code",
    "write a story in python",
    "prove it",
    "how to code " * 40,
    "what is the story of " * 25,
    "a b c d e f",
    "écrire du code",
]
CHAT = [{"role": "system", "content": "explain"}, {"role": "user", "content": "write the code"}]


class QueuedEncoder:
    """A `QueuedEncoder` gives another encoder's very rows, but not compiled: the engine takes its requests by the queue.

    Attributes:
        batches: the prompts of every forward since the warm-up.
        on_encode: called with a forward's prompts before it runs, in the worker: to hold it up, or to fail.
    """

    native = None

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner
        self.dim, self.max_tokens, self.identity = inner.dim, inner.max_tokens, inner.identity
        self.summary, self.tier = "queued", inner.tier
        self.batches: list[list[str]] = []
        self.on_encode: Callable[[list[str]], object] | None = None

    def encode(self, prompts: Sequence[str]) -> Encoded:
        self.batches.append(list(prompts))
        if self.on_encode is not None:
            self.on_encode(list(prompts))
        return self.inner.encode(prompts)

    def count_tokens(self, text: str) -> int:
        return self.inner.count_tokens(text)


class Gate:
    """A `Gate` holds forwards up: `entered` is set when one has begun, each `let` lets one pass, `open` all from then on."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._passes = threading.Semaphore(0)
        self._open = False

    def __call__(self, prompts: list[str]) -> None:
        self.entered.set()
        if not self._open:
            assert self._passes.acquire(timeout=20)

    def let(self, forwards: int = 1) -> None:
        self.entered.clear()
        self._passes.release(forwards)

    def open(self) -> None:
        self._open = True
        self._passes.release(100)


def queued_engine(bundle: Bundle) -> tuple[Engine, QueuedEncoder]:
    """Load an engine of this bundle whose requests go by the queue, with the answers of `Engine(bundle)` to the bit."""
    engine = Engine(bundle)
    encoder = QueuedEncoder(engine.encoder)
    engine.loaded = LoadedBundle(bundle, options=engine.options, encoders={engine.encoder.identity: encoder})  # type: ignore[arg-type]
    return engine, encoder


def sibling_bundles(tmp_path: Path, count: int = 2, **shape: Any) -> list[Bundle]:
    return [Bundle.load(path) for path in make_siblings(tmp_path, count, **shape)]
