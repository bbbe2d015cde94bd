"""python -m benchmarks.gpu PART ENCODER_DIR checks, times and records; benchmarks/gpu.sh calls it part by part.

ENCODER_DIR is an export, or a folder of transformers or sentence-transformers (float16 weights travel in half the bytes).
`--device cpu --quick` takes every step on a CPU with eager stand-ins and Triton's interpreter: it shows that the code runs,
its lines say so, and they are no figures.

    floor    what a replay costs before any work          encoder  the fused encoder, beside torch's forward pass
    decide   the kernel alone, beside eager torch         last     the kernel as the last node of a graph
    text     load, stages, text to decision, throughput   host     the host's part of a call alone
    tune     the decide kernel under other parameters     tune_encoder  the fused encoder under other tiles
    roofs    matrix products, copies, launches            peers    ours beside torch.compile, which frees memory under
    table    what the lines of --out say                           our graphs: a process of its own
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipr_engine import Engine

    from ..harness.results import Line
    from .timing import GpuRun

BATCHES = (1, 8, 32, 64)
PACKAGES = ("torch", "triton", "transformers")
NOT_A_FIGURE = "emulated on the CPU, eager, kernel interpreted: shows that the code runs, is no figure"
PARTS = ("floor", "encoder", "decide", "last", "text", "host", "tune", "tune_encoder", "roofs", "peers", "table")
NEEDS_ENCODER = ("encoder", "text", "host", "tune_encoder", "peers")
HOST_BATCHES = (1, 8)  # the host's part of a row is the same in every batch, and an emulated load takes all of them
QUICK_TOKENS = 64  # Triton's interpreter takes minutes for a long prompt
RESULTS = "gpu.jsonl"  # in a folder given as --out


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("encoder", type=Path, metavar="ENCODER_DIR", nargs="?")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tier", default="torch", choices=("torch", "triton"), help="who runs the encoder, of text and host"
    )
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds")
    parser.add_argument("--pooling", help="mean, cls or last, for a bare transformers folder")
    parser.add_argument("--minutes", type=float, default=4.5, help="no new measurement begins after this long")
    parser.add_argument("--out", type=Path, help=f"append the JSON lines to this file, or to {RESULTS} in this folder")
    arguments = parser.parse_args()
    if arguments.out is not None and arguments.out.is_dir():
        arguments.out /= RESULTS
    if arguments.part == "table":
        return _table(parser, arguments)
    if arguments.part in NEEDS_ENCODER and arguments.encoder is None:
        parser.error(f"ENCODER_DIR: {arguments.part} needs an encoder's folder")
    if arguments.device != "cpu":
        import torch

        if not torch.cuda.is_available():
            parser.error(
                f"--device: expected a GPU that torch finds, got {arguments.device!r} and torch {torch.__version__}; see that nvidia-smi "
                "lists a GPU and torch is built for CUDA, or give --device cpu --quick, whose lines are no figures"
            )
    return _run(arguments)


def _table(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from .figures import table

    if arguments.out is None or not arguments.out.is_file():
        parser.error(f"--out: expected a file of recorded lines, got {arguments.out}")
    lines = [json.loads(line) for line in arguments.out.read_text().splitlines()]
    print(table(lines, next((line["note"] for line in lines if "note" in line), "")))
    return 0


def _run(arguments: argparse.Namespace) -> int:
    on_cpu = arguments.device == "cpu"
    from ..harness.machine import recorded
    from ..harness.results import append

    if on_cpu:
        from tests.support import triton_interpreter

        triton_interpreter.choose()

    begun = time.monotonic()
    command = f"python -m benchmarks.gpu {' '.join(sys.argv[1:])}"
    device = _gpu(arguments.device) | ({"note": NOT_A_FIGURE} if on_cpu else {})
    failed = 0
    lines = _measure(arguments, begun + 60 * arguments.minutes)
    while True:
        try:
            line = next(lines, None)
        except Exception as error:  # what was measured before stands; the fault is a line too
            traceback.print_exc()
            failed, line = (
                1,
                {"op": arguments.part, "what": "failed", "error": f"{type(error).__name__}: {error}"[:500]},
            )
        if line is None:
            return failed
        print(f"[{time.monotonic() - begun:5.0f} s] {json.dumps(line)}", flush=True)
        if arguments.out is not None:
            append(arguments.out, [recorded(line, command) | device | line])


def _measure(arguments: argparse.Namespace, ends: float) -> Iterator[Line]:
    from ipr_engine.cuda import EMULATED
    from ipr_engine.cuda.graphs import open_graphs

    from .timing import GpuRun

    device = EMULATED if arguments.device == "cpu" else arguments.device
    run = GpuRun(graphs=open_graphs(device), quick=arguments.quick, ends=ends)
    yield from _PARTS[arguments.part](run, arguments)
    if run.left_out:
        yield {"op": "left out for want of time", "what": "; ".join(run.left_out)}


def _alone(module: str) -> Any:
    def part(run: GpuRun, _: argparse.Namespace) -> Iterator[Line]:
        yield from importlib.import_module(f".{module}", __package__).measure(run)

    return part


def _of_encoder(module: str) -> Any:
    def part(run: GpuRun, arguments: argparse.Namespace) -> Iterator[Line]:
        yield from importlib.import_module(f".{module}", __package__).measure(run, arguments.encoder)

    return part


def _text(run: GpuRun, arguments: argparse.Namespace) -> Iterator[Line]:
    from . import text

    with tempfile.TemporaryDirectory() as folder:
        export, engine, line = _load(run, arguments, Path(folder), BATCHES)
        yield line
        yield from text.measure(run, engine, export)


def _host(run: GpuRun, arguments: argparse.Namespace) -> Iterator[Line]:
    from . import host

    with tempfile.TemporaryDirectory() as folder:
        _, engine, line = _load(run, arguments, Path(folder), HOST_BATCHES)
        yield line
        yield from host.measure(run, engine)


def _peers(run: GpuRun, arguments: argparse.Namespace) -> Iterator[Line]:
    from . import decide, text

    with tempfile.TemporaryDirectory() as folder:
        export, engine, line = _load(run, arguments, Path(folder), (1, 8))
        yield line
        yield from text.measure_compiled(run, engine, export)
    yield from decide.measure_compiled(run)


_ALONE = {"floor": "floor", "decide": "decide", "last": "last_node", "tune": "tune", "roofs": "device_roofs"}
_PARTS = {part: _alone(module) for part, module in _ALONE.items()} | {"text": _text, "host": _host, "peers": _peers}
_PARTS |= {part: _of_encoder(part) for part in ("encoder", "tune_encoder")}


def _load(
    run: GpuRun, arguments: argparse.Namespace, work: Path, batches: tuple[int, ...]
) -> tuple[Path, Engine, Line]:
    """Return the encoder as an export, an engine on it whose graphs `run` then uses, and the line of its loading."""
    from ipr_engine import Engine
    from ipr_engine.cuda import EMULATED

    from . import models

    max_tokens = QUICK_TOKENS if arguments.quick else models.MAX_TOKENS
    export = models.as_export(arguments.encoder, work, pooling=arguments.pooling, max_tokens=max_tokens)
    bundle = models.make_bundle(export, work)
    device = EMULATED if arguments.device == "cpu" else arguments.device
    start = time.monotonic()
    engine = Engine.load(bundle, tier=arguments.tier, device=device, batches=(1,) if arguments.quick else batches)
    seconds = round(time.monotonic() - start, 1)
    assert engine.loaded.gpu is not None
    run.graphs = engine.loaded.gpu.stream.graphs
    return export, engine, {"op": "load", "what": repr(engine), "seconds": seconds} | _memory(run.graphs.device)


def _memory(device: str) -> dict[str, float]:
    import torch

    return {} if device == "cpu" else {"device_mb": round(torch.cuda.memory_reserved(device) / 2**20)}


def _gpu(device: str) -> Line:
    import torch

    from ..harness.machine import versions

    found: Line = {"device": device, **dict.fromkeys(PACKAGES), **versions(PACKAGES)}
    if device != "cpu":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found


if __name__ == "__main__":
    sys.exit(main())
