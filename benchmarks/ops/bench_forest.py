"""This benchmark times decide with a forest beside decide without it, and scikit-learn's predict of the same trees.

The trees are grown by scikit-learn on random rows, all candidates at once, and are those of `ipr train --estimator forest` in
number and depth. What they add to a logit is checked against scikit-learn's prediction first; rows take turns, so that no leaf
stays in the first cache by chance, and begin after a prediction of scikit-learn, which has emptied the caches. "one row" has all of
its leaves there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads, available_isas
from ipr_engine.decide.reference import sum_leaves
from tests.support.decide_requests import make_heads, make_policy

from ..harness.results import Line
from ..harness.turns import FULL, Size, Timings

MODELS, WIDTH, SURFACE, TREES, DEPTH = 11, 256, 128, 30, 8
ROWS, GROWN_ON, BILLED = 256, 4000, 350.0
SECONDS = 3.0


def run(size: Size = FULL) -> Iterator[Line]:
    rng = np.random.default_rng(0)
    flat = make_heads(rng, MODELS, WIDTH)
    x = rng.standard_normal((ROWS, WIDTH + SURFACE)).astype(np.float32)
    case = {"op": "decide", "batch": 1, "models": MODELS, "dim": WIDTH + SURFACE, "trees": TREES, "depth": DEPTH}
    try:
        grown = _grown(rng)
    except ImportError:
        yield {**case, "case": "forest", "vs": {"sklearn": "not run: scikit-learn is not installed"}}
        return
    trees = _arrays(grown)
    heads = replace(flat, dim=WIDTH + SURFACE, **trees)
    summed = sum_leaves(trees["tree_column"], trees["tree_threshold"], trees["tree_leaf"], x)
    np.testing.assert_allclose(summed, grown.predict(x), atol=1e-5)
    predict = _turns(lambda row: grown.predict(row[None]), x)
    for isa in available_isas():
        calls = {
            "forest": _caller(heads, isa, x),
            "one row": _caller(heads, isa, x[:1]),
            "no forest": _caller(flat, isa, np.ascontiguousarray(x[:, :WIDTH])),
            "sklearn": predict,
        }
        timings = Timings(calls, size.of(SECONDS, 0.05))
        yield {
            **case, "case": "forest", "impl": isa,
            "p50_us": timings.us("forest"), "p99_us": timings.us("forest", 0.99),
            "vs": {name: timings.ratio(name, "forest") for name in ("one row", "no forest", "sklearn")},
        }  # fmt: skip


def _grown(rng: np.random.Generator) -> Any:
    """Return extra-trees of scikit-learn on rows of x, all candidates at once."""
    ensemble = importlib.import_module("sklearn.ensemble")
    z = rng.standard_normal((GROWN_ON, WIDTH + SURFACE)).astype(np.float32)
    forest = ensemble.ExtraTreesRegressor(
        TREES, max_depth=DEPTH, min_samples_leaf=8, max_features=1 / 3, random_state=0
    )
    return forest.fit(z, rng.standard_normal((GROWN_ON, MODELS)))


def _arrays(grown: Any) -> dict[str, Any]:
    """Return the trees as arrays of Heads, whose sum is what they predict."""
    from ipr_engine.training.estimators.forest import heap_of, leaves_of

    trees = [estimator.tree_ for estimator in grown.estimators_]
    heaps = [heap_of(tree, DEPTH) for tree in trees]
    leaf = np.stack([leaves_of(tree, DEPTH) for tree in trees])  # (trees, leaves): nodes of scikit-learn
    values = np.stack([tree.value[nodes, :, 0] for tree, nodes in zip(trees, leaf, strict=True)])
    return {
        "tree_column": np.stack([column for column, _ in heaps]),
        "tree_threshold": np.stack([threshold for _, threshold in heaps]),
        "tree_leaf": (values / len(trees)).astype(np.float32),
    }


def _caller(heads: Heads, isa: str, x: np.ndarray) -> Callable[[], Any]:
    plan = DecidePlan(heads, isa)
    policy = DecidePolicy(plan, **make_policy(np.random.default_rng(1), MODELS))
    run = plan.run
    return _turns(lambda row: run(row, policy, BILLED), x)


def _turns(call: Callable[[np.ndarray], Any], x: np.ndarray) -> Callable[[], Any]:
    rows = cycle(list(x))
    return lambda: call(next(rows))
