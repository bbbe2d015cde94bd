"""Rule `path` has to prepare a set that no policy asked for before: break points, the path and the whole policy are timed.

Synthetic path rows of the default bundle's candidates: what it costs does not depend on whether they are true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle

import numpy as np

from ipr_engine import Bundle, Engine
from ipr_engine.bundle import PathRows
from ipr_engine.decide import reference
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.tau_path import TauPath, break_points

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave

ROWS = 4096  # most rows that a bundle keeps
BELOW = 0.05  # a gap that asks the second tier for about a third of the rows


def run(size: Size = FULL) -> Iterator[Line]:
    rows = size.of(ROWS, 64)
    yield from interleave(variants(rows), [None], {"op": "tau_path", "rows": rows}, base="numpy", size=size)


def variants(rows: int) -> dict[str, Callable[[None], object]]:
    bundle = Engine.load().bundle
    kept = path_rows(bundle, rows)
    one = replace(bundle, path_rows=replace(kept, again_quality=None, again_tokens_out=None))
    two = replace(bundle, path_rows=kept)
    engine, prices, names = Engine(one), bundle.prices, bundle.names
    quality = kept.quality.astype(np.float64)
    cost = row_costs(kept.tokens_out, kept.billed_tokens, bundle.candidates, prices, tokens_in=kept.tokens_in)
    outcome, ranks = kept.realised(), bundle.tie_rank
    check(quality, cost, ranks)
    figures = {name: {"ttft_s": 0.1 * m, "tpot_s": 0.01} for m, name in enumerate(names)}
    tau = cycle(np.linspace(0.1, 0.9, 7).tolist())

    def policy(_: None) -> object:
        engine.loaded.policies.paths = Paths(one)  # nobody asked before
        return engine.policy(tau=next(tau))

    def weighed(_: None) -> object:
        engine.loaded.policies.paths = Paths(one)
        return engine.policy(tau=next(tau), cost_weights={"ttft_s": 1e-3, "generation_s": 1e-3}, performance=figures)

    return {
        "numpy": lambda _: reference.break_points(quality, cost, ranks),
        "break_points": lambda _: break_points(quality, cost, ranks),
        "path": lambda _: TauPath.fit(quality, outcome, cost, ranks),
        "policy, unseen set": policy,
        "policy, unseen set, seconds weighed": weighed,
        "path of two tiers": lambda _: Paths(two).of(names, prices, BELOW),
    }


def check(quality: np.ndarray, cost: np.ndarray, ranks: np.ndarray) -> None:
    """Check that the compiled break points are the definition's."""
    moves, first, last = break_points(quality, cost, ranks)
    for ours, wanted in zip((*moves, first, last), reference.break_points(quality, cost, ranks), strict=True):
        assert np.array_equal(ours, wanted)


def path_rows(bundle: Bundle, rows: int) -> PathRows:
    """Return rows in form: prompts of one difficulty for all candidates, each of an ability of its own."""
    rng, models = np.random.default_rng(0), len(bundle.names)

    def predicted() -> np.ndarray:
        logit = np.linspace(1.5, -0.5, models) - difficulty + rng.normal(0, 0.5, (rows, models))
        return 1 / (1 + np.exp(-logit))

    difficulty = rng.normal(0, 1.3, (rows, 1))
    quality = predicted()
    tokens = np.exp(rng.normal(6, 0.5, (rows, models))).astype(np.float32)
    return PathRows(
        candidates=bundle.names,
        quality=quality.astype(np.float16),
        tokens_out=tokens,
        outcome=(254 * (rng.random((rows, models)) < quality)).astype(np.uint8),
        billed_tokens=rng.integers(20, 900, rows).astype(np.uint32),
        again_quality=predicted().astype(np.float16),
        again_tokens_out=tokens,
        heads=(bundle.quality_heads.sha256,),
    )
