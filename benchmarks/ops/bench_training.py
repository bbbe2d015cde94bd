"""This benchmark measures seconds and peak memory of fitting heads for 30 candidates on generated 256-d embeddings.

Each fit is a fresh process. Memory is linear in prompts: `mb_per_1000_prompts` is the slope between the two largest sizes.
Nothing is checked here but that every prediction is finite; what the heads are worth is docs/studies' matter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from ..harness.results import Line
from ..harness.turns import FULL, Size

MODELS, DIM = 30, 256
SMALL_MODELS, SMALL_DIM = 3, 8
SIZES = {
    "plain": (10_000, 20_000, 40_000),
    "advantage_shared": (10_000, 20_000, 40_000),
    "caps": (10_000, 20_000, 40_000),
    "paper": (10_000,),
    "adapters": (10_000,),
}
SMALL_SIZES = (200, 400)
FIT = """
import json, resource, time
import numpy as np
from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.fitted_heads import HeadRows, fit_heads

rng = np.random.default_rng(0)
x = rng.standard_normal(({prompts}, {dim})).astype(np.float64)
x /= np.linalg.norm(x, axis=1, keepdims=True)
chance = 1 / (1 + np.exp(-4 * x @ rng.standard_normal(({dim}, {models}))))
quality = (rng.random(chance.shape) < chance).astype(float)
tokens = np.exp(5 + rng.standard_normal(chance.shape))
keys = [str(i) for i in range({prompts})]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
with one_thread():
    heads = fit_heads(HeadRows(x, quality, tokens, keys), estimator="{estimator}", options={options})
seconds = time.perf_counter() - start
assert np.isfinite(heads.out_of_fold_quality).all()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, before / 1024, peak / 1024]))
"""


def run(size: Size = FULL) -> Iterator[Line]:
    for estimator, full in SIZES.items():
        if size.smallest and estimator == "paper":
            continue  # half of the time, and fitted by the code that fits adapters
        models, dim = size.of((MODELS, DIM), (SMALL_MODELS, SMALL_DIM))
        options = {"epochs": 2} if size.smallest and estimator == "adapters" else {}
        sizes = size.of(full, SMALL_SIZES[: 2 if estimator == "plain" else 1])
        peaks = []
        for prompts in sizes:
            code = FIT.format(prompts=prompts, dim=dim, models=models, estimator=estimator, options=options)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            seconds, before, peak = json.loads(done.stdout)
            peaks.append((prompts, peak))
            line = {
                "op": "training",
                "impl": estimator,
                "prompts": prompts,
                "models": models,
                "dim": dim,
                "seconds": round(seconds, 2),
                "data_mb": round(before, 1),
                "peak_mb": round(peak, 1),
            }
            if len(peaks) == len(sizes) > 1:
                (n0, p0), (n1, p1) = peaks[-2:]
                line["mb_per_1000_prompts"] = round((p1 - p0) / (n1 - n0) * 1000, 2)
            yield line
