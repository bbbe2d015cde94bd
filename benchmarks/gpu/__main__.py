"""python -m benchmarks.gpu ENCODER_DIR: check, time, print a table; benchmarks/gpu.sh calls it after the tests.

ENCODER_DIR is an export, or a folder of transformers or sentence-transformers (float16 weights travel in half the bytes).
`--device cpu --quick` takes every step on a CPU with eager stand-ins and Triton's interpreter: it shows that the code runs,
its lines say so, and they are no figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BATCHES = (1, 8, 32, 64)
NOT_A_FIGURE = "emulated on the CPU, eager, kernel interpreted: shows that the code runs, is no figure"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path, metavar="ENCODER_DIR")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="few sizes and rounds")
    parser.add_argument("--pooling", help="mean, cls or last, for a bare transformers folder")
    parser.add_argument("--minutes", type=float, default=4.5, help="no new measurement begins after this long")
    parser.add_argument("--out", type=Path, help="append the JSON lines to this file")
    arguments = parser.parse_args()
    on_cpu = arguments.device == "cpu"
    if on_cpu:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

    from benchmarks.gpu.report import table
    from benchmarks.harness import machine

    begun = time.monotonic()
    lines = []
    for line in _measure(arguments, begun + 60 * arguments.minutes):
        told = machine() | {"command": f"python -m benchmarks.gpu {' '.join(sys.argv[1:])}"} | _gpu(arguments.device)
        if on_cpu:
            told["note"] = NOT_A_FIGURE
        lines.append(line)
        print(f"[{time.monotonic() - begun:5.0f} s] {json.dumps(line)}", file=sys.stderr, flush=True)
        if arguments.out is not None:
            with arguments.out.open("a") as file:
                file.write(json.dumps(line | told) + "\n")
    print(table(lines, NOT_A_FIGURE if on_cpu else ""))
    return 0


def _measure(arguments: argparse.Namespace, ends: float) -> Iterator[dict[str, object]]:
    from benchmarks.gpu import decide, models, roofs, text
    from benchmarks.gpu.timing import Run
    from ipr_engine import Engine
    from ipr_engine.encoders.graphs import EMULATED, open_graphs

    device = EMULATED if arguments.device == "cpu" else arguments.device
    run = Run(graphs=open_graphs(device), quick=arguments.quick, ends=ends)
    yield from roofs.measure(run)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        export = models.as_export(arguments.encoder, work, pooling=arguments.pooling)
        bundle = models.make_bundle(export, work)
        start = time.monotonic()
        engine = Engine.load(bundle, tier="torch", device=device, batches=(1, 8) if arguments.quick else BATCHES)
        yield {"op": "load", "what": repr(engine), "seconds": round(time.monotonic() - start, 1)} | _memory(
            run.graphs.device
        )
        assert engine._live.gpu is not None
        run.graphs = engine._live.gpu.stream.graphs
        yield from text.measure(run, engine, export)
    yield from decide.measure(run)
    if run.left_out:
        yield {"op": "left out for want of time", "what": "; ".join(run.left_out)}


def _memory(device: str) -> dict[str, float]:
    import torch

    return {} if device == "cpu" else {"device_mb": round(torch.cuda.memory_reserved(device) / 2**20)}


def _gpu(device: str) -> dict[str, object]:
    import torch

    found: dict[str, object] = {"device": device}
    for package in ("torch", "triton", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    if device != "cpu":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found


if __name__ == "__main__":
    sys.exit(main())
