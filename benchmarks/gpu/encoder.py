"""This part times the fused encoder beside torch's forward pass, both as nodes of a graph; it is correct first.

Op "encoder": what "gate" (cosine to torch in float32), "bits" (numbers of a row that differ alone and in a batch, and between the
tables of tiles), then times: a pass inside a recording of several ("node"), a replay of one until it is waited for ("replay").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ipr_engine.encoders.manifest import is_export, read_export
from ipr_engine.encoders.torch import load_model, pool
from ipr_engine.kernels.bert import BertLaunch, BertPlan, BertTiles
from ipr_engine.kernels.bert.bert_tiles import bert_tables, bert_tiles

from ..harness.results import Line
from .timing import GpuRun, node_us

SIZES = ((1, 64), (1, 16), (1, 128), (8, 64), (512, 64), (64, 64), (1, 512))
QUICK = ((1, 5),)
CHECKED = ((1, 64), (3, 17), (2, 129), (33, 64))
GATE = 0.9999  # least cosine of an embedding to float32's
MOST = {"few": 4096, "some": 8192}  # rows beyond which small tiles are not timed
LONG = 2048  # rows above which a recording holds fewer passes


def measure(run: GpuRun, folder: Path) -> Iterator[Line]:
    """Yield lines of op "encoder"."""
    model = read_model(run, folder)
    reason = BertPlan.unfit(model.config)
    if reason:
        yield {"op": "encoder", "what": "unfit", "error": reason}
        return
    plan = BertPlan(model, run.graphs.device)
    tables = bert_tables(plan.arch, plan.shape.head)
    for batch, tokens in QUICK if run.quick else CHECKED:
        for name, tiles in tables.items():
            yield _gate(run, plan, model, tiles, batch, tokens) | {"rows": name}
    yield from _bits(run, plan, tables)
    model = model.half() if run.on_gpu else model
    for batch, tokens in QUICK if run.quick else SIZES:
        if not run.has_time(f"encoder, {batch} x {tokens}", 8):
            continue
        own = bert_tiles(batch * tokens, plan.arch, plan.shape.head)
        others = [
            tiles
            for tiles in tables.values()
            if tiles.rows != own.rows and batch * tokens <= MOST.get(tiles.rows, 2**31)
        ]
        tried = [own, *others[: 1 if run.quick else None]]
        for tiles in tried + ([replace(own, pdl=False)] if plan.pdl and own.pdl else []):
            launch = make_launch(run, plan, batch, tokens, tiles=tiles)
            labels = {"impl": "fused", "rows": tiles.rows, "pdl": plan.pdl and tiles.pdl, "nodes": launch.nodes}
            yield from _times(run, launch, labels, batch, tokens)
        yield from _times(run, _by_torch(run, model, plan, batch, tokens), {"impl": "torch float16"}, batch, tokens)


def read_model(run: GpuRun, folder: Path) -> Any:
    """Return the transformer of an export or a transformers folder, in float32 on the device."""
    path = read_export(folder).file("weights").parent if is_export(folder) else folder
    return load_model(path, "float32").to(run.graphs.device)


def make_launch(
    run: GpuRun,
    plan: BertPlan,
    batch: int,
    tokens: int,
    *,
    lengths: list[int] | None = None,
    tiles: BertTiles | None = None,
) -> BertLaunch:
    """Return a launch over generated ids; every row is full where no lengths are given."""
    seen = torch.tensor(lengths or [tokens] * batch, dtype=torch.int32, device=run.graphs.device)
    return BertLaunch(plan, _ids(run, plan, batch, tokens), seen, batch, tokens, tiles=tiles)


def _ids(run: GpuRun, plan: BertPlan, batch: int, tokens: int) -> Any:
    rows = [
        torch.randint(plan.vocabulary, (tokens,), dtype=torch.int32, generator=torch.Generator().manual_seed(row))
        for row in range(batch)
    ]
    return torch.stack(rows).to(run.graphs.device)


def _gate(run: GpuRun, plan: BertPlan, model: Any, tiles: BertTiles, batch: int, tokens: int) -> Line:
    lengths = [max(tokens - 5 * row, 1) for row in range(batch)]
    launch = make_launch(run, plan, batch, tokens, lengths=lengths, tiles=tiles)
    for buffer in launch.buffers():
        buffer.fill_(float("nan"))
    seen = torch.arange(tokens, device=run.graphs.device)[None] < launch.lengths[:, None]
    with torch.inference_mode():
        states = torch.nn.functional.layer_norm(
            launch().float(), (plan.dim,), plan.norm_scale, plan.norm_shift, plan.eps
        )
        found = pool(states, seen.long(), "mean", True)
        hidden = model(input_ids=launch.ids.long(), attention_mask=seen.long()).last_hidden_state
        cosine = float((found * pool(hidden.float(), seen.long(), "mean", True)).sum(dim=1).min())
    if not cosine >= GATE:
        raise AssertionError(f"{batch} x {tokens}, {tiles.rows}: cosine {cosine} to float32, expected {GATE}")
    return {"op": "encoder", "what": "gate", "batch": batch, "tokens": tokens, "least_cosine": round(cosine, 8)}


def _bits(run: GpuRun, plan: BertPlan, tables: dict[str, BertTiles]) -> Iterator[Line]:
    """Count the numbers of one row that differ from the row alone: in a bucket, in a batch, by the other table."""
    length, bucket, batch = (5, 16, 2) if run.quick else (37, 128, 33)

    def row(batch: int, tokens: int, tiles: BertTiles) -> Any:
        lengths = [length] + [min(tokens, length + 3)] * (batch - 1)
        launch = make_launch(run, plan, batch, tokens, lengths=lengths, tiles=tiles)
        launch.ids.copy_(_ids(run, plan, batch, bucket)[:, :tokens])
        return launch()[0, :length].clone()

    alone = {name: row(1, length, tiles) for name, tiles in tables.items()}
    for name, tiles in tables.items():
        yield {
            "op": "encoder", "what": "bits", "rows": name, "numbers": alone[name].numel(),
            "in_a_bucket": int((row(1, bucket, tiles) != alone[name]).sum()),
            "in_a_batch": int((row(batch, bucket, tiles) != alone[name]).sum()),
        }  # fmt: skip
    first, *others = alone
    for name in others:
        differ = int((alone[first] != alone[name]).sum())
        yield {
            "op": "encoder",
            "what": "bits",
            "rows": f"{first} beside {name}",
            "numbers": alone[first].numel(),
            "differ": differ,
        }


def _by_torch(run: GpuRun, model: Any, plan: BertPlan, batch: int, tokens: int) -> Callable[[], object]:
    ids = _ids(run, plan, batch, tokens).long()
    mask = torch.ones_like(ids)
    return lambda: model(input_ids=ids, attention_mask=mask).last_hidden_state


def _times(run: GpuRun, work: Callable[[], object], labels: Line, batch: int, tokens: int) -> Iterator[Line]:
    named = {"op": "encoder", **labels, "batch": batch, "tokens": tokens}
    nodes = 4 if batch * tokens > LONG else 10
    with nullcontext() if run.on_gpu else torch.inference_mode():
        for name, count in (("node", nodes), ("replay", 1)):
            found = node_us(run, f"encoder {named}", work, nodes=count, rounds=100)
            yield named | {"as": name, **found, "prompts_per_s": round(batch / found["p50_us"] * 1e6)}
