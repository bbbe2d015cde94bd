"""`measure` finds what the machine can do at best, in the same run: matrix products and copies of random data, launches.

Zeros would be multiplied some 13 % faster than what a model holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ..harness.results import Line
from .timing import GpuRun, node_us


def measure(run: GpuRun) -> Iterator[Line]:
    size = 256 if run.quick else 4096
    for dtype in ("float32",) if run.quick else ("float16", "bfloat16", "float32"):
        a, b, c = (torch.randn(size, size, device=run.graphs.device).to(getattr(torch, dtype)) for _ in range(3))
        found = node_us(run, f"gemm {dtype}", partial(torch.mm, a, b, out=c), nodes=2, rounds=30)
        yield {"op": "roof", "what": "gemm", "dtype": dtype, "tflops": round(2 * size**3 / found["p50_us"] / 1e6, 2)}
    megabytes = 4 if run.quick else 512
    target = run.graphs.buffer((megabytes << 20,), torch.uint8)
    source = torch.randint(256, (megabytes << 20,), dtype=torch.uint8, device=run.graphs.device)
    found = node_us(run, "copy", lambda: target.copy_(source), nodes=4, rounds=30)
    yield {"op": "roof", "what": "device copy", "gb_per_s": round(2 * (megabytes << 20) / found["p50_us"] / 1e3, 1)}
    for name, size in (("64 kB", 1 << 16), ("16 MB", 1 << 24)):
        host, there = run.graphs.host_buffer((size,), torch.uint8), run.graphs.buffer((size,), torch.uint8)
        for way, to, of in (("host to device", there, host), ("device to host", host, there)):
            found = node_us(run, way, partial(to.copy_, of, non_blocking=True))
            yield {"op": "roof", "what": way, "size": name, "gb_per_s": round(size / found["p50_us"] / 1e3, 2)}
    one = run.graphs.buffer((1,), torch.float32)
    for name, nodes in (
        ("a recording of one small kernel, replayed and waited for", 1),
        ("a small kernel's node", 100),
    ):
        yield {"op": "roof", "what": name, **node_us(run, "launch", lambda: one.add_(1), nodes=nodes)}
