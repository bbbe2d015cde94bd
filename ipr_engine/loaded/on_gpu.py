"""`route_on_gpu` takes the walk's steps on a GPU, one after the other: what one C++ call (gpu_router/recorded.py) does not say."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, Router
from ipr_engine._profiling import span
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.conversation import Conversation
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.conversations import counts_of_all_turns, encoded_texts
from ipr_engine.gpu_router.route_plan import GpuRoutePlan
from ipr_engine.gpu_router.route_rows import RouteRows
from ipr_engine.policy.policy import Policy
from ipr_engine.request.intake import Intake, all_counted, bill_all, text_terms
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides
from ipr_engine.request.row_inputs import BatchInputs, moved_by, request_limits, router_limits


class GpuRows(NamedTuple):
    """`GpuRows` are the rows that a GPU decided, and what `Decisions` takes of them: result, figures, inputs.

    Attributes:
        rows: positions in the call; the others have bad prompts.
    """

    rows: npt.NDArray[np.int64]
    result: DecideResult
    figures: tuple[
        npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None
    ]
    inputs: BatchInputs


class DecidesOnGpu(Protocol):
    """A loaded bundle that `DecidesOnGpu`; the attributes are those of `PlannedBundle`."""

    bundle: Bundle
    conversation: Conversation
    encoder: Encoder
    router: Router

    def own_tokens(
        self,
        terms: npt.NDArray[np.float64] | None,
        billed: npt.NDArray[np.int64],
        given: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.float32] | None: ...


def route_on_gpu(
    bundle: DecidesOnGpu, gpu: GpuRoutePlan, intake: Intake, policy: Policy, overrides: RequestOverrides
) -> GpuRows | None:
    """Return the rows, decided in recordings; None where a prompt has no token, which leaves a recording nothing to read.

    Tasks are told and decide nothing: heads that read some stand on encoders side by side, which the CPU decides.
    """
    batch, good = len(intake.requests), intake.good
    counts, truncated = np.zeros(batch, np.int64), np.zeros(batch, np.bool_)
    with span("tokenize"):
        read = [intake.requests[row] for row in good]
        texts = encoded_texts(bundle.encoder, read, bundle.conversation)
        ids, counts[good], truncated[good] = gpu.stream.read(texts)
        counts[good] = counts_of_all_turns(bundle.encoder, read, counts[good], bundle.conversation)
        bills = bill_all(bundle.encoder, intake, counts)
    kept = [(row, own) for row, own in zip(good, ids, strict=True) if row not in intake.errors]
    rows = np.array([row for row, _ in kept], np.int64)
    if not len(rows) or not counts[rows].all():  # a recording reads at least one token a row
        return None
    requests, given = [intake.requests[row] for row in rows.tolist()], [intake.given[row] for row in rows.tolist()]
    terms = text_terms(requests, [bill is not None for bill in given])
    overrides = overrides.at(rows)
    tokens, extra = overrides.tokens_out, overrides.extra_usd
    own = bundle.own_tokens(terms, bills[rows], overrides.tokens_in)
    needs = [request.needs for request in requests]
    with_cached = policy.rates.with_cached(extra, bills[rows], own, overrides.cached_tokens)
    usd = policy.rates.with_images(with_cached, needs)
    limits = request_limits(bundle.bundle, needs, tokens, len(rows))
    asked = RouteRows(
        ids=[own for _, own in kept],
        billed=bills[rows],
        own_tokens=own,
        tokens_out=tokens,
        extra_usd=policy.weighed(usd),
        limits=limits,
    )
    result, x = gpu.route(policy, asked)
    support = bundle.router.support(x)
    if support is not None and policy.unsupported.min_support:
        masks = (tokens is not None, *router_limits(limits))
        bundle.router.send_unsupported(result, policy.compiled, asked.billed, *masks, support, own_tokens=own)
    moved = None
    if overrides is not NO_OVERRIDES or not all_counted(terms):
        moved = moved_by(len(rows), terms, tokens, extra, with_cached, overrides.tokens_in)
    inputs = BatchInputs(
        limits=limits,
        extra_usd=usd,
        moved=moved,
        tokens_in_given=overrides.tokens_in_given,
        tasks=None if intake.tasks is None else tuple(intake.tasks[row] for row in rows.tolist()),
    )
    return GpuRows(rows, result, (asked.billed, truncated[rows], support, own), inputs)
