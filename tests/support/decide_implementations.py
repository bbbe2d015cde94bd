"""The implementations of decide stand behind one call: the reference, the C++ op, the Triton kernel.

Without a GPU the kernel runs in Triton's interpreter, which must be chosen before triton is imported: import this first.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tests.support import decide_requests, skips, triton_interpreter
from tests.support.decide_requests import PARTS, Request

torch = pytest.importorskip("torch", reason=skips.GPU)
ON_DEVICE = torch.cuda.is_available()
DEVICE = "cuda" if ON_DEVICE else "cpu"
if not ON_DEVICE and importlib.util.find_spec("triton"):
    triton_interpreter.choose()
triton = pytest.importorskip("triton", reason=skips.GPU)
if not (ON_DEVICE or triton.knobs.runtime.interpret):
    raise RuntimeError("triton was imported without TRITON_INTERPRET=1 before tests/support/decide_implementations.py")

from ipr_engine.decide.contract import CAUSE, STATUS  # noqa: E402
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult  # noqa: E402
from ipr_engine.kernels.run import DecideLaunch  # noqa: E402
from ipr_engine.kernels.variant import LaunchParams  # noqa: E402

# Blocks that the table does not use at these sizes: several hidden blocks, many rows, candidates split.
SPLIT = LaunchParams(
    one_program=False, block_rows=8, block_models=8, block_hidden=32, block_dim=32, unroll=1, block_choice=16,
    block_tokens=2, num_warps=4, num_stages=1,
)  # fmt: skip
ROWS = LaunchParams(
    one_program=True, block_rows=4, block_models=32, block_hidden=32, block_dim=32, unroll=2, block_choice=32,
    block_tokens=4, num_warps=4, num_stages=2,
)  # fmt: skip
WIDE = replace(SPLIT, block_rows=16, block_models=512, block_choice=512, block_dim=64)
TALL = replace(WIDE, one_program=True, block_models=64, block_hidden=64)
LAUNCHES = {"table": None, "split": SPLIT, "rows": ROWS}


@dataclass(frozen=True)
class Answer:
    """An `Answer` is what DecideResult offers the tests, from any implementation."""

    index: np.ndarray
    quality: np.ndarray
    tokens_out: np.ndarray
    cost_usd: np.ndarray
    threshold: np.ndarray
    gap: np.ndarray
    status: np.ndarray
    cause: np.ndarray

    def index_at(self, row: int) -> int:
        return int(self.index[row])

    def threshold_at(self, row: int) -> float:
        return float(self.threshold[row])

    def gap_at(self, row: int) -> float:
        return float(self.gap[row])

    def status_at(self, row: int) -> int:
        return int(self.status[row])

    def cause_at(self, row: int) -> int:
        return int(self.cause[row])


def tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).clone().to(DEVICE)


def gpu_request(request: Request, batch: int) -> GpuRequest:
    billed = np.asarray(request.billed_tokens, np.float32)
    billed = billed if billed.ndim == 2 else np.broadcast_to(billed, batch)
    optional = {"tokens_out": request.tokens_out, "extra_usd": request.extra_usd, "allowed": request.allowed}
    return GpuRequest(
        x=tensor(np.atleast_2d(request.x)),
        billed_tokens=tensor(billed),
        policy_of_row=torch.zeros(batch, dtype=torch.int32, device=DEVICE),
        **{name: tensor(value) for name, value in optional.items() if value is not None},
    )


def poison(result: GpuResult) -> None:
    """Put NaN in every float that a launch writes, 255 in every byte: what is not written shows."""
    result.block.fill_(255)
    result.adapters.fill_(float("nan"))
    result.flags.fill_(-1)


def launch(request: Request, params: LaunchParams | None = None, dtype: str = "float32") -> DecideLaunch:
    plan = GpuPlan(request.heads, device=DEVICE, dtype=dtype, launch=params)
    plan.set_policy(0, **request.policy)
    batch = len(np.atleast_2d(request.x))
    result = GpuResult(plan, batch)
    poison(result)
    return DecideLaunch(plan, gpu_request(request, batch), result)


def by_triton(request: Request, params: LaunchParams | None = None, dtype: str = "float32") -> Answer:
    """Return the kernel's answer, from buffers that were poisoned; its counters must be 0 again."""
    result = launch(request, params, dtype)()
    assert not result.arrivals.any()
    return Answer(**result.numpy())


def use_wide_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "triton" take few programs a launch in the interpreter, for its time; tests that name their tiles show the others."""
    if not ON_DEVICE:
        wide = {"triton": lambda it: by_triton(it, WIDE if len(it.heads.bias) > 64 else TALL)}
        monkeypatch.setattr(decide_requests, "IMPLEMENTATIONS", decide_requests.IMPLEMENTATIONS | wide)


def by_reference(request: Request) -> Answer:
    exact = request.reference()
    rows = exact.rows
    return Answer(
        index=np.array([row.index for row in rows], np.int32),
        quality=exact.quality, tokens_out=exact.tokens_out, cost_usd=exact.cost_usd,
        threshold=np.array([row.threshold for row in rows]),
        gap=np.array([row.gap for row in rows]),
        status=np.array([STATUS.index(row.status) for row in rows], np.uint8),
        cause=np.array([CAUSE.index(row.cause) for row in rows], np.uint8),
    )  # fmt: skip


decide_requests.IMPLEMENTATIONS |= {"triton": by_triton, "reference": by_reference}
IMPLEMENTATIONS = ("reference", "scalar", "triton")  # the instruction sets agree in every bit with scalar

assert set(PARTS) == set(Answer.__dataclass_fields__)
