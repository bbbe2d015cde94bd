"""`Limits` bounds a service's queue and its batches; a `QueuedRequest` is one prompt in the queue, a `Recordable` an answer to record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ipr_engine._validate import number
from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.decision.decision import Row
from ipr_engine.decision.decisions import Decisions
from ipr_engine.errors import InvalidInputError
from ipr_engine.loaded.planned_bundle import PlannedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import ParsedRequest
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future


@dataclass(frozen=True, kw_only=True)
class Limits:
    """A `Limits` holds the bounds of the queue and of a batch, checked once, when it is made.

    Attributes:
        max_batch: most prompts of one forward.
        max_batch_tokens: most tokens of one forward, padding included; a prompt alone may exceed it.
        max_queue: requests that may wait, those in a forward not counted; one more is an OverloadError.
        max_wait_us: a request that would have to wait longer for its decision, as foreseen from what forwards cost, is an
            OverloadError, unless nobody waits before it; None: as many as max_queue.
        wait_fraction: after a forward of several prompts the worker waits at most this share of a forward of one prompt
            for as many again; it never waits otherwise.
        inline_chars: a text up to this long is answered in the caller's thread where the encoder is compiled (static tier), and looked
            up in the cache there; a longer one goes to the worker, so that it holds up no event loop.
    """

    max_batch: int = 32
    max_batch_tokens: int = 8192
    max_queue: int = 256
    max_wait_us: float | None = None
    wait_fraction: float = 0.25
    inline_chars: int = 65_536

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "wait_fraction":
                if not 0.0 <= number("wait_fraction", value) <= 1.0:
                    raise InvalidInputError(f"wait_fraction: expected a share in [0, 1], got {value!r}")
            elif field.name == "max_wait_us":
                if value is not None and number("max_wait_us", value) <= 0.0:
                    raise InvalidInputError(
                        f"max_wait_us: expected microseconds above 0, got {value!r}; leave it out for no bound"
                    )
            else:
                least = 0 if field.name == "inline_chars" else 1
                if type(value) is not int or value < least:
                    raise InvalidInputError(f"{field.name}: expected a whole number >= {least}, got {value!r}")


def read_limits(limits: Limits | Mapping[str, Any] | None) -> Limits:
    """Return the limits that a caller gave, whole or as a mapping of some of them."""
    if limits is None or isinstance(limits, Limits):
        return limits or Limits()
    known = Limits.__dataclass_fields__.keys()
    if not isinstance(limits, Mapping) or not limits.keys() <= known:
        raise InvalidInputError(f"limits: expected Limits, or a mapping of {', '.join(known)}, got {limits!r}")
    return Limits(**limits)


NEW, QUEUED, RUNNING, DONE = range(4)


@dataclass(frozen=True, slots=True, eq=False)
class Recordable:
    """A `Recordable` is an answer that its caller gets once its record is written, with what the record is made of.

    Attributes:
        row: the answer.
        loaded, decisions, at: what decided it, the batch with its `made_on`, and the row in it; decisions None where nothing was
            predicted. All None where the record is made already.
        degraded: which fallback answered; None for none. record: where it is made already, without id and prompt.
    """

    row: Row
    loaded: PlannedBundle | None = None
    decisions: Decisions | None = None
    at: int = 0
    degraded: str | None = None
    record: Any = None


class RecordTaker(Protocol):
    """A `RecordTaker` writes the record of an answer, then hands the answer over; record_log.py has it."""

    def take(self, request: QueuedRequest, answer: Recordable) -> None: ...


@dataclass(slots=True, eq=False)
class RecordWish:
    """A `RecordWish` says who writes a request's record, what it is called, the prompt where that is kept, and what chance drew."""

    log: RecordTaker
    id: str | int | None = None
    prompt: Any = None
    draw: ExplorationDraw | None = None


Answer: TypeAlias = Row | Exception  # an exception is what the caller gets raised
Made: TypeAlias = Answer | Recordable  # an answer as it is made: some wait for their record


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """A `QueuedRequest` is one queued prompt: its arguments, the caller that waits for the answer, and its state.

    The state changes under the scheduler's lock; whoever moves it to DONE answers the request, or drops it.

    Attributes:
        text: the prompt, taken apart. policy: as resolved when the request came.
        begun_ns, deadline_ns: of clock_ns; deadline_ns None without a budget.
        billed_tokens, on_error: as given to `Engine.route`, of one prompt. overrides: its tokens_out and the like. task: its name.
        key: of the decision cache, None to stay out of it.
        fallback: what the configured fallback prepared for it, None without a budget or without one.
        tokens, encoder: what the transformer would see of it, counted for the encoder of that identity.
        loop, future: who waits in an event loop; ready: what a waiting thread blocks on. One of the two is set.
        record: what its caller asks of its record, None where it is not recorded.
        way: the stage that counts its latency. answer: for the waiting thread; of a recorded request that was decided in its
            caller's thread, the answer before it is recorded.
    """

    text: ParsedRequest
    policy: Policy
    _: KW_ONLY
    begun_ns: int
    budget_us: float | None = None
    deadline_ns: int | None = None
    billed_tokens: int | None = None
    overrides: RequestOverrides = NO_OVERRIDES
    task: str | None = None
    on_error: str = "raise"
    key: bytes | None = None
    fallback: Any = None
    state: int = NEW
    tokens: int = 0
    encoder: str | None = None
    loop: AbstractEventLoop | None = None
    future: Future[Row] | None = None
    ready: Lock | None = None
    record: RecordWish | None = None
    way: str = "queued"
    answer: Made | None = None
