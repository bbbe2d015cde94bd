"""A bundle that some prompts do not fit into, and an engine of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ipr_engine import Engine
from tests.support.bundles import make_bundle
from tests.support.replay_logs import CHAT, PROMPTS, TERMS, WHOLE

WINDOWS = [1000, None, 100_000, None, 1000]


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("audit"), models=5, dim=16, context_windows=WINDOWS)


@pytest.fixture(scope="module")
def engine(path: Path) -> Engine:
    return Engine.load(path)


@pytest.fixture(scope="module")
def log(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A log of every kind of call: lines of bytes."""
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    x = np.random.default_rng(5).standard_normal((6, 16)).astype(np.float32)
    x[1, 3], x[2, 0], x[3] = np.nan, np.inf, 0.0
    x[4] *= np.float32(1e30)
    with engine.recorder(file, **WHOLE) as recorder:
        for terms in TERMS:
            recorder.route_many(PROMPTS, on_error="status", **terms)
        policy = engine.policy(tau=0.3)
        recorder.route(CHAT, policy, id="chat")
        recorder.route(PROMPTS[0], policy, id=7, billed_tokens=12345)
        recorder.route_many(
            PROMPTS[:2], policy, id=["a", 8], tokens_out=[1, 2, 3, 4, 5], extra_usd=-np.eye(5)[:2] / 1000
        )
        recorder.route_many(PROMPTS[:1], policy, tokens_out=np.inf, on_error="status")
        recorder.decide(x, policy, billed_tokens=[0, 1, 2, 3, 4, 2**53], on_error="status")
        recorder.decide(engine.encode(PROMPTS), policy)
    return file.read_bytes().splitlines(keepends=True)
