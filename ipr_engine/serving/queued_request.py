"""A queued request is one prompt on its way to a decision: what its caller gave, who waits for it, and how far it has come."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from ipr_engine.decision.decision import Row
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import ParsedRequest
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

NEW, QUEUED, RUNNING, DONE = range(4)

Answer: TypeAlias = Row | Exception  # an exception is what the caller gets raised


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A validated request. Its state changes under the scheduler's lock; whoever moves it to DONE answers it, or drops it.

    Attributes:
        text: the prompt, taken apart. policy: as resolved when the request came.
        begun_ns, deadline_ns: of clock_ns; deadline_ns None without a budget.
        billed_tokens, on_error: as of `Engine.route`, of one prompt. overrides: its tokens_out and the like.
        key: of the decision cache, None to stay out of it.
        fallback: what the configured fallback prepared for it, None without a budget or without one.
        tokens, encoder: what the transformer would see of it, counted for the encoder of that identity.
        loop, future: who waits in an event loop; ready: what a waiting thread blocks on. One of the two is set.
        answer: for the waiting thread.
    """

    text: ParsedRequest
    policy: Policy
    _: KW_ONLY
    begun_ns: int
    budget_us: float | None = None
    deadline_ns: int | None = None
    billed_tokens: int | None = None
    overrides: RequestOverrides = NO_OVERRIDES
    on_error: str = "raise"
    key: bytes | None = None
    fallback: Any = None
    state: int = NEW
    tokens: int = 0
    encoder: str | None = None
    loop: AbstractEventLoop | None = None
    future: Future[Row] | None = None
    ready: Lock | None = None
    answer: Answer | None = None
