"""pytest-benchmark times the parts of a route, for work on kernels: `python -m pytest benchmarks/test_micro.py`.

The tests run each of them once (tests/benchmarks/test_benchmarks.py). Keep a base with `--benchmark-save=NAME`, compare with
`--benchmark-compare`; one isa or part: `-k avx2`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.decide.contract import available_isas

from .load.lengths import fixed_lengths
from .load.targets import EngineTarget, StagesTarget

pytest.importorskip("pytest_benchmark", reason="needs extra [bench]: pytest-benchmark")
TAU = 0.2
Benchmark = Callable[..., Any]  # pytest-benchmark's fixture: calls its first argument with the others, many times


@pytest.fixture(scope="module", params=available_isas())
def engine(request: pytest.FixtureRequest) -> Engine:
    return Engine.load(isa=request.param)


@pytest.fixture(params=[16, 64, 512], ids=lambda tokens: f"{tokens} tokens")
def prompt(request: pytest.FixtureRequest, engine: Engine) -> str:
    return fixed_lengths([request.param], engine.encoder.count_tokens, seed=0).prompts[0]


def test_route(benchmark: Benchmark, engine: Engine, prompt: str) -> None:
    policy = engine.policy(tau=TAU)
    decision = benchmark(engine.route, prompt, policy)
    assert decision.model == EngineTarget(engine, policy).choose(prompt)


def test_tokenize(benchmark: Benchmark, engine: Engine, prompt: str) -> None:
    assert benchmark(engine.encoder.count_tokens, prompt) > 0


def test_encode(benchmark: Benchmark, engine: Engine, prompt: str) -> None:
    encoded = benchmark(engine.encode, [prompt])
    assert encoded.x.shape == (1, engine.encoder.dim)


def test_decide(benchmark: Benchmark, engine: Engine, prompt: str) -> None:
    policy = engine.policy(tau=TAU)
    x = engine.encode([prompt]).x
    result = benchmark(engine.plan.run, x, policy.compiled, 60.0)
    assert result.all_ok


def test_stages_in_a_row(benchmark: Benchmark, engine: Engine, prompt: str) -> None:
    with StagesTarget(engine, engine.policy(tau=TAU)).session() as call:
        assert len(benchmark(call, prompt)) == 3
