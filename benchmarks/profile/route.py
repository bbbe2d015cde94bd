"""route.py routes generated prompts for a profiler to watch; see README.md beside this file.

python benchmarks/profile/route.py ENCODER_DIR --batch 1 --tokens 64 [--eager] [--trace FILE] [--device cpu]
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path, metavar="ENCODER_DIR")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--eager", action="store_true", help="the same work without graphs")
    parser.add_argument("--trace", type=Path, help="write torch.profiler's trace here")
    parser.add_argument("--device", default="cuda", help="cpu: to try this script, with Triton's interpreter")
    parser.add_argument("--pooling", help="for a bare transformers folder")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"

    import ipr_engine._profiling as profiling
    from benchmarks.gpu import models
    from ipr_engine import Engine
    from ipr_engine.cuda import EMULATED, graphs
    from ipr_engine.encoders.transformer import TransformerEncoder

    if arguments.trace:
        profiling.enable("profiler")  # before the recordings are made, which mark what is inside them then
        with importlib.import_module("torch").profiler.profile():
            pass  # CUPTI is up before graphs are captured; started later it may not see the kernels inside them
    device = EMULATED if arguments.device == "cpu" else arguments.device
    if arguments.eager and device != EMULATED:
        on = graphs.CudaGraphs(device).device
        graphs.CudaGraphs = lambda *_, **__: graphs.EagerGraphs(on)  # type: ignore[misc,assignment]
    with tempfile.TemporaryDirectory() as folder:
        export = models.as_export(arguments.encoder, Path(folder), pooling=arguments.pooling)
        bundle = models.make_bundle(export, Path(folder))
        engine = Engine.load(bundle, tier="torch", device=device, batches=(arguments.batch,))
        print(engine)
        assert isinstance(engine.encoder, TransformerEncoder)
        prompts = models.prompts_of(engine.encoder, arguments.tokens, arguments.batch)
        policy = engine.policy(tau=0.3)
        for _ in range(5):
            engine.route_many(prompts, policy)
        _profiled(arguments, lambda: engine.route_many(prompts, policy))


def _profiled(arguments: argparse.Namespace, call: Callable[[], object]) -> None:
    import ipr_engine._profiling as profiling

    torch: Any = importlib.import_module("torch")
    on_gpu = arguments.device != "cpu"
    trace: Any = torch.profiler.profile(with_modules=True) if arguments.trace else nullcontext()
    if on_gpu:
        torch.cuda.profiler.start()
    with trace:
        for _ in range(arguments.calls):
            call()
    if on_gpu:
        torch.cuda.profiler.stop()
    if arguments.trace:
        trace.export_chrome_trace(str(arguments.trace))
        averages = trace.key_averages()
        counts = {one.key: one.count for one in averages if one.key in profiling.NAMES}
        print(
            f"ranges in {arguments.calls} calls: {', '.join(f'{name} {counts.get(name, 0)}' for name in profiling.NAMES)}"
        )
        order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
        print(averages.table(sort_by=order, row_limit=20))


if __name__ == "__main__":
    main()
