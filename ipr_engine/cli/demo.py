"""`ipr demo` routes a dozen prompts at several tau, and prints tables a person enjoys reading."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from ipr_engine.cli.options import add_bundle_options, load_engine, shorten
from ipr_engine.cli.text_table import Cell, Page, TextTable
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions
from ipr_engine.engine import Engine

TAUS = (0.0, 0.05, 0.1, 0.2, 0.4, 1.0)
TIMED_CALLS = 3000

# From what the default bundle was fitted on (maths, code reasoning) to what it never saw.
DEMO_PROMPTS = (
    "A baker makes 14 trays of 12 rolls, sells 9 rolls to each of 15 customers and gives the rest away. How many does she give away?",
    "Maria cycles 18 km to work at 15 km/h and returns at 20 km/h. How many minutes does she spend cycling in a five-day week?",
    "Find the number of ordered pairs of positive integers (a, b) with a + b = 120 such that gcd(a, b) is a perfect square greater than 1.",
    "Let f(x) = x^3 - 6x^2 + 11x - 6. For which real k does f(x) = k have exactly two distinct real solutions? Give the larger one exactly.",
    "def f(s):\n    out = []\n    for i, c in enumerate(s):\n        out.append(c.upper() if i % 3 == 0 else c)\n    return ''.join(out)[::-1]\n\nWhat does f('routing') return?",
    "def g(d):\n    while len(d) > 2:\n        d.pop(min(d, key=lambda k: (d[k], k)))\n    return sorted(d)\n\nWhat is g({'a': 3, 'b': 1, 'c': 2, 'd': 1})?",
    "Three fair dice are rolled. What is the probability that the largest value shown is exactly 4? Answer as a fraction in lowest terms.",
    "What is the capital of Australia?",
    "Write a polite two-line reply that declines a meeting on Friday and proposes Monday morning instead.",
    "Erkläre in drei Sätzen, warum der Himmel blau ist, so dass es ein Kind versteht.",
    "请用一句话解释什么是量子纠缠。",
    "Our Postgres query with three joins became slow after an upgrade: EXPLAIN shows a nested loop over 2 million rows. What would you check first?",
)


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="route a dozen prompts at several tau",
        description="Route a dozen built-in prompts at several tau, and time the calls.",
    )
    parser.add_argument("--tau", type=float, default=0.2, help="tau of the first table (default 0.2)")
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    engine = load_engine(arguments, Engine)
    routed = engine.route_many(DEMO_PROMPTS, tau=arguments.tau)
    bundle = engine.bundle
    page = Page()
    page.text(
        f"bundle {bundle.name} {bundle.hash[:12]} · {len(bundle.names)} candidates · isa {engine.plan.isa}\n\n", "dim"
    )
    page.table(_prompt_table(routed, arguments.tau))
    page.text("\n")
    page.table(_tau_table(engine))
    elsewhere = [decision.model for decision in routed if decision.cause == "unsupported"]
    if elsewhere:
        page.text(
            f"{len(elsewhere)} of {len(DEMO_PROMPTS)} prompts are unlike what this bundle was fitted on, and go to "
            f"{', '.join(sorted(set(map(str, elsewhere))))} at every tau: ask prompts of your own with `ipr route`.\n\n",
            "yellow",
        )
    best = sum(_best_cost(decision) for decision in routed)
    chosen = sum(decision.cost_usd for decision in routed)
    microseconds = _time(engine, arguments.tau)
    page.text(
        f"tau {arguments.tau:g}: {_saved(chosen, best)} less expected cost than always asking the best predicted model; "
        f"{microseconds:.1f} us per decision, text to choice (median of {TIMED_CALLS} calls, one thread).",
        "bold",
    )
    return 0


def _best_cost(decision: Decision) -> float:
    """Return what the candidate of highest predicted quality would have cost, in USD."""
    return float(decision.costs_usd[int(np.argmax(decision.qualities))])


def _saved(cost: float, best: float) -> str:
    """Return what is saved against a cost in percent; a loss that rounds to nothing is 0 %, without a sign."""
    return f"{round(1 - cost / best, 2) + 0.0:.0%}"


def _prompt_table(routed: Decisions, tau: float) -> TextTable:
    headings = ("prompt", "chosen", "quality", "cost, USD/1k", "best would cost", "support")
    table = TextTable(f"Who answers at tau {tau:g}?", headings, left=(0, 1), cut=0)
    for prompt, decision in zip(DEMO_PROMPTS, routed, strict=True):
        support = decision.support
        table.add(
            shorten(prompt, 46),
            decision.model or decision.status,
            f"{decision.quality:.2f}",
            f"{1000 * decision.cost_usd:.3f}",
            f"{1000 * _best_cost(decision):.3f}",
            "-" if support is None else Cell(_support(decision, support), "" if support >= 0.005 else "yellow"),
        )
    table.caption = (
        "quality: predicted share of correct answers · cost: expected, USD per 1,000 such prompts · "
        "support: share of fitting prompts less typical than this one; outside = extrapolation"
    )
    if any(decision.cause == "unsupported" for decision in routed):
        table.caption += "; unsupported = so far outside that the bundle names who answers"
    return table


def _support(decision: Decision, support: float) -> str:
    """Return what the table says of a prompt's support."""
    if decision.cause == "unsupported":
        return "unsupported"
    return f"{support:.2f}" if support >= 0.005 else "outside"


def _tau_table(engine: Engine) -> TextTable:
    headings = ("tau", "mean quality", "cost, USD/1k", "saved", "who answers")
    table = TextTable("What a tolerance buys, over these prompts", headings, left=(4,))
    encoded = engine.encode(list(DEMO_PROMPTS))  # once; every tau decides on the same embeddings
    best = sum(_best_cost(decision) for decision in engine.decide(encoded, tau=0.0))
    for tau in TAUS:
        decisions = engine.decide(encoded, tau=tau)
        cost = float(decisions.cost_usd.sum())
        counts: dict[str, int] = {}
        for name in decisions.models:
            counts[str(name)] = counts.get(str(name), 0) + 1
        mix = ", ".join(f"{n}x {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
        table.add(
            f"{tau:g}",
            f"{decisions.quality.mean():.3f}",
            f"{1000 * cost / len(decisions):.3f}",
            _saved(cost, best),
            mix,
        )
    return table


def _time(engine: Engine, tau: float) -> float:
    """Return the median microseconds of one `route` call over the demo's prompts."""
    policy = engine.policy(tau=tau)
    spans = []
    for call in range(TIMED_CALLS):
        prompt = DEMO_PROMPTS[call % len(DEMO_PROMPTS)]
        start = time.perf_counter_ns()
        engine.route(prompt, policy)
        spans.append(time.perf_counter_ns() - start)
    return float(np.median(spans)) / 1000
