"""Subjects are timed in turns: in every round each embeds the same prompts, and ratios are taken round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ipr_engine.decide.contract import DecidePlan, DecidePolicy, Heads
from ipr_engine.errors import IprError

from ..harness.results import Line
from ..harness.turns import uncollected
from ..peers.subject import Embeddings, Subject
from .roofs import Roofs, flops, weight_bytes

LEAST_ROUNDS, MOST_ROUNDS = 5, 60
TURN_SECONDS = 0.004  # a turn is as many calls as fill it, one at least
STAGES = ("tokenize", "embed", "encode")
CANDIDATES = 11  # heads of the timed decision


@dataclass(frozen=True)
class Cell:
    """A `Cell` holds prompts that are embedded in one call. label: of their lengths, "64" or "mixed"."""

    label: str
    prompts: list[str]
    lengths: tuple[int, ...]  # ids with special ones, after the cut

    @property
    def batch(self) -> int:
        return len(self.prompts)


def check(subjects: Sequence[Subject], prompts: list[str], reference: Subject) -> dict[str, float]:
    """Return each subject's least cosine with the reference's embeddings, before anything is timed."""
    want = _unit(reference.encode(prompts))
    return {
        subject.name: round(float((_unit(subject.encode(prompts)) * want).sum(axis=1).min()), 7) for subject in subjects
    }


def _weight_bytes(name: str) -> int:
    return next((size for dtype, size in (("int8", 1), ("bfloat16", 2)) if dtype in name), 4)


def _unit(x: Embeddings) -> Any:
    wide = x.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def time_cell(
    cell: Cell,
    subjects: Sequence[Subject],
    base: str,
    *,
    seconds: float,
    roofs: Roofs,
    sizes: Any,
    on_failure: Callable[[str, str], None],
) -> Iterator[Line]:
    """Return one line a subject and stage.

    Args:
        base: the subject that ratios are taken to.
        seconds: for the whole cell; at least LEAST_ROUNDS rounds are run whatever they take.
        sizes: of the model, see `roofs.layers_of`; None leaves the roofs out.
        on_failure: is told of a subject that fails on these prompts; the others go on.
    """
    calls: dict[tuple[str, str], Callable[[], object]] = {}
    counts: dict[tuple[str, str], int] = {}
    for subject in subjects:
        try:
            mine = _stages(subject, cell.prompts)
            for stage, call in mine.items():
                call()  # compiles, allocates
                start = time.perf_counter()
                call()
                counts[subject.name, stage] = max(1, int(TURN_SECONDS / max(time.perf_counter() - start, 1e-7)))
                calls[subject.name, stage] = call
        except (IprError, RuntimeError, ValueError) as error:
            on_failure(subject.name, str(error).partition("\n")[0])
            calls = {key: call for key, call in calls.items() if key[0] != subject.name}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    order = list(calls)
    end = time.perf_counter() + seconds
    with uncollected():
        for turn in range(MOST_ROUNDS):
            if turn >= LEAST_ROUNDS and time.perf_counter() > end:
                break
            for key in order[turn % len(order) :] + order[: turn % len(order)]:
                times[key].append(_turn(calls[key], counts[key]))
    for (name, stage), mine_s in times.items():
        theirs = times.get((base, stage))
        seen = statistics.median(mine_s)
        line = {
            "op": "encoder",
            "impl": name,
            "stage": stage,
            "tokens": cell.label,
            "batch": cell.batch,
            "ids": sum(cell.lengths),
            "p50_us": round(seen * 1e6, 2),
            "prompts_per_s": round(cell.batch / seen, 1),
            "rounds": len(mine_s),
        }
        if theirs is not None:
            ratios = np.array(mine_s) / np.array(theirs)
            line |= {
                "vs_base": round(float(np.median(ratios)), 4),
                "vs_base_quartiles": [round(float(q), 4) for q in np.quantile(ratios, (0.25, 0.75))],
                "base": base,
            }
        if stage == "embed" and sizes is not None:
            rate = flops(sizes, cell.lengths) / seen / 1e9
            read = weight_bytes(sizes, bytes_each=_weight_bytes(name)) / seen / 1e9
            line |= {
                "gflops": round(rate, 2),
                "share_of_gflops": round(rate / roofs.gflops, 4),
                "weights_gb_per_s": round(read, 2),
                "share_of_gb_per_s": round(read / roofs.gb_per_s, 4),
            }
        yield line


def _stages(subject: Subject, prompts: list[str]) -> dict[str, Callable[[], object]]:
    tokens = subject.tokenize(prompts)
    return {
        "tokenize": lambda: subject.tokenize(prompts),
        "embed": lambda: subject.embed(tokens),
        "encode": lambda: subject.encode(prompts),
    }


def _turn(call: Callable[[], object], count: int) -> float:
    """Return seconds a call: the median of a turn's, after one that is not counted (the caches are full of another's data)."""
    call()
    seen = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seen.append(time.perf_counter() - start)
    return statistics.median(seen)


def time_decide(dim: int, batch: int, *, rounds: int = 200) -> Line:
    """Time the decision on these embeddings, which an encoder is to be seen beside: 11 linear heads of random weights."""
    rng = np.random.default_rng(0)
    skip = rng.standard_normal((CANDIDATES, dim)).astype(np.float32) / np.float32(np.sqrt(dim))
    plan = DecidePlan(Heads(skip=skip, bias=np.zeros(CANDIDATES, np.float32)))
    ones = np.ones(CANDIDATES, np.float32)
    policy = DecidePolicy(
        plan,
        alpha_hi=0.7,
        alpha_lo=0.3,
        offset=0.0,
        worth=0.0,
        in_rate=ones,
        out_rate=ones,
        fixed_usd=0 * ones,
        allowed=np.ones(CANDIDATES, np.bool_),
    )
    x = rng.standard_normal((batch, dim)).astype(np.float32)
    times = [_turn(lambda: plan.run(x, policy, billed_tokens=100, tokens_out=100 * ones), 5) for _ in range(rounds)]
    return {
        "op": "encoder",
        "impl": "decide",
        "stage": "decide",
        "tokens": "any",
        "batch": batch,
        "p50_us": round(statistics.median(times) * 1e6, 2),
        "rounds": rounds,
    }
