"""This module prints the lines as a short table, with the figures to reach beside what was found."""

from __future__ import annotations

from typing import Any

from ..harness.results import Line

COLUMNS = ("p50_us", "p90_us", "p99_us", "p999_us")


def table(lines: list[Line], note: str) -> str:
    parts = [note] if note else []
    for op in dict.fromkeys(line["op"] for line in lines):
        mine = [line for line in lines if line["op"] == op]
        parts.append(f"\n== {op}")
        parts += [_row(line) for line in mine]
    if not note:
        parts += ["\n== figures to reach", *_figures(lines)]
    return "\n".join(parts)


def _row(line: Line) -> str:
    labels = [
        f"{key}={line[key]}" for key in ("batch", "models", "dim", "hidden", "tokens", "bucket", "as") if key in line
    ]
    labels += [str(line[key]) for key in ("what", "dtype", "size", "impl", "wait", "error") if key in line]
    labels += [",".join(f"{key}={value}" for key, value in line["params"].items())] if "params" in line else []
    skipped = {"op", "samples", "batch", "models", "dim", "hidden", "tokens", "load_1m"}
    figures = [
        f"{key} {value:,}" for key, value in line.items() if key not in skipped and isinstance(value, (int, float))
    ]
    return f"{' '.join(labels):<70} {'  '.join(figures)}"


def _figures(lines: list[Line]) -> list[str]:
    """Yield one line a figure: what was asked for, what was found or that it was not measured."""

    def find(**labels: Any) -> Line:
        """Return the newest such line; empty where there is none."""
        newest = (line for line in reversed(lines) if all(line.get(key) == value for key, value in labels.items()))
        return next(newest, {})

    found = []
    fused = {"op": "encoder", "impl": "fused", "as": "node"}
    alone = [find(**fused, batch=1, tokens=64, pdl=pdl).get("p50_us") for pdl in (True, False)]
    best = min((value for value in alone if value is not None), default=None)
    found.append(_row_of("fused encoder, 64 tokens, batch 1: estimated 55 to 65 us, 40 to 50 with PDL", best))
    rate = find(**fused, batch=512, tokens=64).get("prompts_per_s")
    found.append(_row_of("fused encoder from ids, 512 x 64: at least 300,000 prompts/s", rate))
    for batch, limit in ((1, 3), (256, 5)):
        node = find(op="decide", batch=batch, models=11, dim=384, hidden=64, impl="ipr_engine", **{"as": "node"})
        found.append(_row_of(f"decide node, batch {batch}: at most {limit} us", node.get("p50_us")))
    call = {"op": "decide", "batch": 1, "models": 11, "dim": 384, "hidden": 64, "as": "python call"}
    ours, compiled = find(**call, impl="ipr_engine"), find(**call, impl="torch.compile default")
    found.append(_row_of("decide from Python: at least 3 times as fast as torch.compile", _ratio(compiled, ours)))
    text = {"op": "text to decision", "batch": 1, "tokens": 64}
    one, eager = (
        find(**text, impl=name) for name in ("encoder and decide in one graph", "eager encoder, decide on the CPU")
    )
    found.append(_row_of("text to decision, 64 tokens, batch 1: p50 at most 250 us", one.get("p50_us")))
    found.append(_row_of("the same: p99 at most 350 us", one.get("p99_us")))
    found.append(_row_of("the same: at least 5 times as fast as eager PyTorch", _ratio(eager, one)))
    rates = [line["prompts_per_s"] for line in lines if line["op"] == "throughput" and line["impl"] == "text"]
    found.append(_row_of("throughput at 64 tokens: at least 100,000 prompts/s", max(rates, default=None)))
    return found


def _ratio(slow: Line, fast: Line) -> float | None:
    return round(slow["p50_us"] / fast["p50_us"], 2) if slow and fast else None


def _row_of(figure: str, value: float | None) -> str:
    return f"{figure:<70} {'not measured' if value is None else f'{value:,}'}"
