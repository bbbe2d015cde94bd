"""The parts of a route under pytest-benchmark, for work on kernels: `python -m pytest benchmarks/test_micro.py`.

Not part of the tests. Keep a base with `--benchmark-save=NAME` and compare with `--benchmark-compare`; one isa or part: `-k avx2`.
"""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from ipr_engine.decide import available_isas
from ipr_engine.loadtest.lengths import fixed_lengths
from ipr_engine.loadtest.targets import EngineTarget, StagesTarget

pytest.importorskip("pytest_benchmark", reason="needs extra [bench]: pytest-benchmark")
TAU = 0.2


@pytest.fixture(scope="module", params=available_isas())
def engine(request):
    return Engine.load(isa=request.param)


@pytest.fixture(params=[16, 64, 512], ids=lambda tokens: f"{tokens} tokens")
def prompt(request, engine):
    return fixed_lengths([request.param], engine.encoder.count_tokens, seed=0).prompts[0]


def test_route(benchmark, engine, prompt):
    policy = engine.policy(tau=TAU)
    decision = benchmark(engine.route, prompt, policy)
    assert decision.model == EngineTarget(engine, policy).choose(prompt)


def test_tokenize(benchmark, engine, prompt):
    assert benchmark(engine.encoder.count_tokens, prompt) > 0


def test_encode(benchmark, engine, prompt):
    encoded = benchmark(engine.encode, [prompt])
    assert encoded.x.shape == (1, engine.encoder.dim)


def test_decide(benchmark, engine, prompt):
    policy = engine.policy(tau=TAU)
    x = engine.encode([prompt]).x
    result = benchmark(engine.plan.run, x, policy.compiled, 60.0)
    assert result.all_ok


def test_stages_in_a_row(benchmark, engine, prompt):
    with StagesTarget(engine, engine.policy(tau=TAU)).session() as call:
        assert len(benchmark(call, prompt)) == 3
