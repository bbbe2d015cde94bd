"""This part times the fused encoder under other tiles: an entry of kernels/bert/bert_tiles.json should hold the best.

One kernel's tile at a time is replaced in the table's entry, and a whole pass is timed, so that what neighbours gain or lose
counts. Tiles are compiled by several processes at once, which share Triton's cache; each is compared with the entry's states
before it is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ipr_engine._extras import need
from ipr_engine.kernels.bert import BertLaunch, BertPlan, BertTiles
from ipr_engine.kernels.bert.bert_tiles import AttentionTile, ProductTile, bert_tables

from ..harness.results import Line
from .encoder import make_launch, read_model
from .timing import GpuRun, node_us

SIZES = {"few": ((1, 64), (1, 16)), "some": ((8, 64), (1, 512), (64, 64)), "many": ((512, 64),)}
QUICK = ((1, 3),)
COMPILERS = 12
CLOSE = 2e-2  # of the states' norm: float16, other orders of sums

# (depth, warps, stages)
ATTENTION = {
    "few": ((64, 8, 2), (64, 8, 3), (64, 8, 4), (64, 4, 3), (64, 4, 4), (128, 8, 2), (128, 8, 3), (128, 4, 2)),
    "some": ((64, 8, 4), (64, 4, 3), (128, 8, 2)),
    "many": ((64, 8, 2), (64, 8, 4), (64, 4, 2), (64, 4, 3), (128, 8, 2), (32, 8, 4)),
}
# (rows, cols, depth, warps, stages)
PROJECT = {
    "few": (
        (16, 32, 128, 4, 3), (16, 32, 256, 4, 4), (16, 16, 128, 4, 6), (16, 16, 256, 4, 4), (16, 64, 128, 4, 5), (32, 32, 128, 4, 5),
        (16, 32, 128, 2, 5), (64, 16, 128, 4, 4), (64, 32, 128, 4, 4),
    ),
    "some": ((64, 32, 128, 4, 4), (64, 64, 128, 4, 3), (64, 128, 64, 4, 4), (128, 64, 64, 4, 4), (32, 32, 128, 4, 4)),
    "many": (
        (128, 128, 64, 8, 4), (128, 128, 64, 4, 4), (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (128, 128, 128, 8, 2), (256, 64, 64, 8, 3),
        (128, 64, 128, 8, 3),
    ),
}  # fmt: skip
EXPAND = {
    "few": (
        (16, 64, 128, 4, 3), (16, 32, 64, 4, 4), (16, 32, 128, 4, 3), (16, 64, 64, 8, 4), (16, 128, 64, 4, 4), (32, 64, 64, 4, 4),
        (64, 32, 64, 4, 4), (64, 64, 64, 4, 4),
    ),
    "some": ((64, 32, 64, 4, 4), (64, 64, 64, 8, 4), (64, 128, 64, 4, 4), (128, 64, 64, 8, 4), (128, 128, 64, 8, 3)),
    "many": (
        (128, 128, 64, 8, 4), (128, 128, 64, 8, 2), (128, 64, 64, 4, 4), (64, 128, 64, 4, 4), (128, 128, 128, 8, 2), (256, 128, 64, 8, 3),
        (256, 64, 64, 8, 3), (64, 64, 64, 4, 4),
    ),
}  # fmt: skip


def variants(table: BertTiles) -> list[tuple[str, BertTiles]]:
    """Return the table's entry, then what else might be faster: the name of the kernel, the tiles."""
    found = [
        ("entry", table),
        ("pdl", replace(table, pdl=not table.pdl)),
    ]
    for depth, warps, stages in ATTENTION[table.rows]:
        found.append(("attention", replace(table, attention=AttentionTile(depth=depth, warps=warps, stages=stages))))
    for name, tried in (("project", PROJECT), ("expand", EXPAND)):
        for rows, cols, depth, warps, stages in tried[table.rows]:
            tile = ProductTile(rows=rows, cols=cols, depth=depth, warps=warps, stages=stages)
            found.append((name, replace(table, **{name: tile})))
    return [found[0], *(one for one in found[1:] if one[1] != table)]


def measure(run: GpuRun, folder: Path) -> Iterator[Line]:
    """Yield lines of op "tune_encoder"."""
    model = read_model(run, folder)
    reason = BertPlan.unfit(model.config)
    if reason:
        yield {"op": "tune_encoder", "what": "unfit", "error": reason}
        return
    plan = BertPlan(model, run.graphs.device)
    tried = [
        one
        for table in bert_tables(plan.arch, plan.shape.head).values()
        for one in variants(table)[: 2 if run.quick else None]
    ]
    if run.on_gpu:
        with ProcessPoolExecutor(
            COMPILERS, get_context("spawn"), initializer=_start, initargs=(model.config.to_dict(), run.graphs.device)
        ) as compilers:
            for fault in compilers.map(_compile, [tiles for _, tiles in tried]):
                if fault:
                    yield {"op": "tune_encoder", "what": "not compiled", "error": fault}
    right: dict[tuple[int, int], Any] = {}
    for part, tiles in tried:
        shown = asdict(tiles)[part] if part in ("attention", "project", "expand") else {}
        labels = {"op": "tune_encoder", "rows": tiles.rows, "part": part, "params": shown}
        if not run.has_time(f"tune_encoder {labels}"):
            continue
        try:
            found = {}
            for batch, tokens in QUICK if run.quick else SIZES[tiles.rows]:
                launch = make_launch(run, plan, batch, tokens, tiles=tiles)
                _check(launch, right.setdefault((batch, tokens), launch().float().clone()))
                nodes, rounds = (1, 30) if batch * tokens > 2048 else (10, 60)
                found[f"{batch}x{tokens}_us"] = node_us(run, f"{labels}", launch, nodes=nodes, rounds=rounds)["p50_us"]
        except Exception as error:  # tiles that do not fit the device are a line too; others are measured
            yield labels | {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
        else:
            yield labels | found


def _check(launch: BertLaunch, right: Any) -> None:
    off = float((launch().float() - right).norm() / right.norm())
    if not off <= CLOSE:
        raise AssertionError(f"states are off by {off:.1e} of their norm, expected {CLOSE}")


_WORKER: dict[str, BertPlan] = {}  # of a process that compiles


def _start(config: dict[str, Any], device: str) -> None:
    transformers = need("transformers", "the tuning of the encoder")
    one = transformers.BertConfig.from_dict({**config, "num_hidden_layers": 1, "vocab_size": 64})
    _WORKER["plan"] = BertPlan(transformers.BertModel(one, add_pooling_layer=False), device)


def _compile(tiles: BertTiles) -> str:
    plan = _WORKER["plan"]
    try:
        ids = torch.zeros((1, 16), dtype=torch.int32, device=plan.device)
        BertLaunch(plan, ids, torch.ones(1, dtype=torch.int32, device=plan.device), 1, 16, tiles=tiles)()
        torch.cuda.synchronize(plan.device)
    except Exception as error:
        return f"{tiles}: {type(error).__name__}: {str(error)[:200]}"
    return ""
