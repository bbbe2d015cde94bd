"""Which of the waiting requests share the next forward."""

from __future__ import annotations

from collections.abc import Sequence

from ipr_engine.serving.forward_cost import ForwardCost
from ipr_engine.serving.queue_limits import Limits
from ipr_engine.serving.request import Request

PADDING_SHARE = 0.125  # of a batch's tokens that may be padding whatever a forward costs
ENOUGH = (
    32  # a forward whose fixed part is a 32nd of its time gains nothing by growing: the next one is as good, and sooner
)
FEW = 8  # prompts up to which it grows all the same, since the fixed part is an estimate
WINDOW = 4  # so many times max_batch requests are looked at, from the oldest on


def compose(window: Sequence[Request], limits: Limits, cost: ForwardCost, now_ns: int) -> list[Request]:
    """The next batch: the oldest request, and those nearest to it in length as long as the batch stays within bounds.

    Bounds: max_batch rows; max_batch_tokens, padding included; padding of at most PADDING_SHARE, or of what another forward's
    fixed cost is worth; nobody's deadline passes for being in a larger batch. Beyond FEW rows it ends where growing gains
    nothing (ENOUGH): on a CPU after some hundred tokens, on a GPU hardly ever. The oldest is always in, so that nobody starves.

    Args:
        window: the waiting requests, oldest first, at least one, their tokens counted.
        now_ns: of clock_ns.
    """
    oldest = window[0]
    batch, longest, total, slack = [oldest], oldest.tokens, oldest.tokens, oldest.slack_us(now_ns)
    padding_worth = cost.fixed_tokens
    for request in sorted(window[1:], key=lambda other: abs(other.tokens - oldest.tokens)):
        if len(batch) >= limits.max_batch or (len(batch) >= FEW and total >= ENOUGH * padding_worth):
            break
        top = max(longest, request.tokens)
        padded = top * (len(batch) + 1)
        padding = padded - total - request.tokens
        patience = min(slack, request.slack_us(now_ns))
        if (
            padded <= limits.max_batch_tokens
            and padding <= max(padding_worth, PADDING_SHARE * padded)
            and (patience == float("inf") or cost.predict(padded) <= patience)
        ):
            batch.append(request)
            longest, total, slack = top, total + request.tokens, patience
    return batch


def padded_tokens(batch: Sequence[Request]) -> int:
    """Tokens of a forward of these requests, each padded to the longest."""
    return len(batch) * max(request.tokens for request in batch)
