"""One prompt on its way through the queue: what was asked, who waits for it, and how far it is."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

from ipr_engine.decision import Row
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import ParsedRequest
from ipr_engine.serving.request_overrides import RequestOverrides

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

NEW, QUEUED, RUNNING, DONE = range(4)

Outcome: TypeAlias = Row | Exception


class Request:
    """A validated request. Its state changes under the scheduler's lock; who moves it to DONE answers it, or drops it.

    Attributes:
        text: the prompt, taken apart. policy: as settled when it came. key: of the decision cache, None to stay out of it.
        billed_tokens, on_error: as of `Engine.route`, of one prompt. own: its tokens_out and the like, None for none.
        begun_ns, deadline_ns: of clock_ns; deadline_ns None without a budget.
        fallback: what the configured fallback prepared for it, None without a budget or without one.
        tokens, encoder: what the transformer would see of it, counted for the encoder of that identity.
        loop, future: who waits in an event loop; ready: what a waiting thread blocks on. One of the two is set.
        outcome: for the waiting thread.
    """

    __slots__ = (
        "begun_ns",
        "billed_tokens",
        "budget_us",
        "deadline_ns",
        "encoder",
        "fallback",
        "future",
        "key",
        "loop",
        "on_error",
        "outcome",
        "own",
        "policy",
        "ready",
        "state",
        "text",
        "tokens",
    )

    def __init__(
        self,
        text: ParsedRequest,
        policy: Policy,
        *,
        begun_ns: int,
        budget_us: float | None = None,
        billed_tokens: int | None = None,
        own: RequestOverrides | None = None,
        on_error: str = "raise",
        key: bytes | None = None,
        fallback: Any = None,
    ) -> None:
        self.text = text
        self.policy = policy
        self.begun_ns = begun_ns
        self.budget_us = budget_us
        self.deadline_ns = None if budget_us is None else begun_ns + int(budget_us * 1e3)
        self.billed_tokens = billed_tokens
        self.own = own
        self.on_error = on_error
        self.key = key
        self.fallback = fallback
        self.state = NEW
        self.tokens = 0
        self.encoder: str | None = None
        self.loop: AbstractEventLoop | None = None
        self.future: Future[Row] | None = None
        self.ready: Lock | None = None
        self.outcome: Outcome | None = None

    def awaited_in(self, loop: AbstractEventLoop) -> Future[Row]:
        self.loop, self.future = loop, loop.create_future()
        return self.future

    def awaited_by_thread(self) -> Lock:
        self.ready = Lock()
        self.ready.acquire()
        return self.ready

    def slack_us(self, now_ns: int) -> float:
        """Microseconds until its deadline, negative after it, infinite without one."""
        return float("inf") if self.deadline_ns is None else (self.deadline_ns - now_ns) / 1e3
