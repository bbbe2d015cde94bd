"""`ask_all` sends the calls of a collection, as fast as its providers and its budget allow, and notes every one in the ledger."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ipr_engine._extras import need
from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.budget import Budget, BudgetSpentError
from ipr_engine.collection.callers import Caller
from ipr_engine.collection.calls import Call, bill_of, note_answer, note_failed, note_sent
from ipr_engine.collection.ledger import Ledger, Work
from ipr_engine.collection.provider import ProviderLimits
from ipr_engine.collection.reply import Answered, Failed

FIRST_WAIT_S, MOST_WAIT_S = (
    0.5,
    30.0,
)  # between attempts, where the server asks for none: doubled each time, drawn from its upper half
AHEAD = 4  # calls that wait for a provider, for each that is in flight
FAILED_IN_A_ROW = 10  # calls of a candidate that fail before any has succeeded: the others would too
UNREACHED = 10  # attempts at a provider that found no connection before any did


@dataclass
class Progressed:
    """A `Progressed` counts what a run has done so far.

    Attributes:
        answered, failed: calls. retried: attempts after the first.
        truncated, refused: answers that were cut or refused. reasons: (candidate, reason) -> failed calls.
        stopped: candidate -> why it is asked no more. overrun: why the whole run stopped, where a server billed more than it could.
    """

    answered: int = 0
    failed: int = 0
    retried: int = 0
    truncated: int = 0
    refused: int = 0
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    stopped: dict[str, str] = field(default_factory=dict)
    overrun: str | None = None
    budget_spent: bool = False
    interrupted: bool = False
    not_noted: BaseException | None = None

    def add(self, other: Progressed) -> None:
        """Add what a later part of the run did."""
        for name in ("answered", "failed", "retried", "truncated", "refused"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons += other.reasons
        self.stopped |= other.stopped
        self.overrun = self.overrun or other.overrun
        self.budget_spent |= other.budget_spent
        self.interrupted |= other.interrupted

    @property
    def stops_all(self) -> bool:
        """Return whether nothing more is to be sent, whoever is asked."""
        return self.budget_spent or self.overrun is not None or self.not_noted is not None


@dataclass(frozen=True, kw_only=True)
class Site:
    """A `Site` is one provider at work: how it is asked, within what limits, and who answers there."""

    caller: Caller
    limits: ProviderLimits
    candidates: Mapping[str, AskedCandidate]


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A `Desk` is what all calls of a run are noted on.

    Attributes:
        prices: candidate -> the number of its price in the ledger. stop: somebody has told the run to end.
        halt: nothing more is to be sent, for that or another reason; whoever waits for a turn need not.
    """

    ledger: Ledger
    budget: Budget
    run: int
    prices: Mapping[str, int]
    stop: asyncio.Event
    halt: asyncio.Event
    tell: Callable[[Progressed], None]


async def ask_all(
    calls: AsyncIterator[Call], sites: Mapping[str, Site], desk: Desk, stopped: Mapping[str, str] = MappingProxyType({})
) -> Progressed:
    """Send calls in order, each to its provider's queue, and return what became of them.

    A provider that is behind holds up the others: so candidates answer the same prompts, and a table is full as far as it goes.

    stopped: candidate -> why it is not asked, from earlier in the run.
    """
    done = Progressed(stopped=dict(stopped))
    lanes = {name: _Lane(site, desk, done) for name, site in sites.items()}
    lane_of = {candidate: lanes[name] for name, site in sites.items() for candidate in site.candidates}
    async with asyncio.TaskGroup() as group:
        for lane in lanes.values():
            for _ in range(lane.site.limits.concurrency):
                group.create_task(lane.work())
        async for call in calls:
            if desk.stop.is_set() or done.stops_all:
                break
            if call.candidate not in done.stopped:
                await lane_of[call.candidate].queue.put(call)
        for lane in lanes.values():
            for _ in range(lane.site.limits.concurrency):
                await lane.queue.put(None)
    await asyncio.wrap_future(desk.ledger.submit(lambda of: None))  # behind all that was noted
    if done.not_noted is not None:
        raise done.not_noted
    done.interrupted = desk.stop.is_set()
    return done


class _Lane:
    """The queue of one provider, and what works it off."""

    def __init__(self, site: Site, desk: Desk, done: Progressed) -> None:
        self.site, self._desk, self._done = site, desk, done
        self._loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Call | None] = asyncio.Queue(AHEAD * site.limits.concurrency)
        limiter = need("aiolimiter", "rates of providers", "collect").AsyncLimiter
        rate, tokens = site.limits.requests_per_minute, site.limits.tokens_per_minute
        self._pace = None if rate is None else limiter(1, 60.0 / rate)
        self._tokens_a_minute = tokens
        self._token_pace = None if tokens is None else limiter(tokens, 60.0)
        self._open_at = 0.0  # of the loop's clock: a server asked to wait until then
        self._in_a_row: Counter[str] = Counter()  # candidate -> calls that failed, none having succeeded
        self._succeeded: set[str] = set()
        self._unreached: int | None = 0  # attempts without a connection; None: there was one

    async def work(self) -> None:
        """Work off calls until there are no more."""
        while (call := await self.queue.get()) is not None:
            if self._goes_on(call):
                await self._finish(call)

    def _goes_on(self, call: Call) -> bool:
        return not (self._desk.stop.is_set() or self._done.stops_all or call.candidate in self._done.stopped)

    async def _finish(self, call: Call) -> None:
        """Send a call until it has an answer, or has failed for good."""
        for attempt in range(self.site.limits.retries + 1):
            if attempt:
                self._done.retried += 1
            result = await self._once(call)
            if result is None:  # not sent: no money, or the candidate was stopped
                return
            if isinstance(result, Answered):
                self._count(result)
                self._succeeded.add(call.candidate)
                break
            last = attempt == self.site.limits.retries or not result.retry or not self._goes_on(call)
            wait = self._wait(result, attempt)
            if last or wait is None:
                self._give_up(call, result)
                break
            if not await self._slept(wait):
                self._give_up(call, result)
                break
        self._desk.tell(self._done)

    async def _once(self, call: Call) -> Answered | Failed | None:
        """Send a call once, and note what became of it."""
        await self._turn(call)
        if not self._goes_on(call):
            return None
        desk, asked = self._desk, self.site.candidates[call.candidate]
        try:
            await desk.budget.reserve(call.candidate, call.most)
        except BudgetSpentError as error:
            if error.of is None:
                self._done.budget_spent = True
                desk.halt.set()
            else:
                self._done.stopped[error.of] = "its budget_usd is spent"
            return None
        charged = call.most
        try:
            number = await asyncio.wrap_future(desk.ledger.submit(lambda of: note_sent(of, call, desk.run)))
            if number is None:  # answered meanwhile, or in flight: another prompt asks the same
                charged = 0
                return None
            start = time.monotonic()
            result = await self.site.caller.ask(call.body)
            seconds = time.monotonic() - start
            self._look_for_a_connection(result)
            if isinstance(result, Failed):
                charged = call.most if result.billed else 0
                self._note(lambda of: note_failed(of, call, number, result, seconds))
            else:
                bill = bill_of(asked, call, result)
                charged = bill[1]
                price = desk.prices[call.candidate]
                self._note(lambda of: note_answer(of, call, number, result, bill, price=price, seconds=seconds))
                if charged > call.most:
                    desk.halt.set()
                    self._done.overrun = (
                        f"{call.candidate}: its provider reports more tokens than were asked for and can be: "
                        f"USD {charged / 1e9:.6f} of at most {call.most / 1e9:.6f}; the cap cannot be kept"
                    )
        finally:
            await desk.budget.settle(call.candidate, call.most, charged)
        return result

    def _note(self, work: Work) -> None:
        """Have the ledger note something; the next call waits behind it. Where it cannot, the run ends."""

        def look(future: Future[None]) -> None:
            self._done.not_noted = self._done.not_noted or future.exception()
            if self._done.not_noted is not None:
                self._loop.call_soon_threadsafe(self._desk.halt.set)

        self._desk.ledger.submit(work).add_done_callback(look)

    async def _turn(self, call: Call) -> None:
        """Wait until this provider may be asked."""
        while (left := self._open_at - asyncio.get_running_loop().time()) > 0:
            if not await self._slept(left):
                return
        if self._pace is not None:
            await self._or_halted(self._pace.acquire())
        if self._token_pace is not None and self._tokens_a_minute is not None:
            await self._or_halted(self._token_pace.acquire(min(call.most_tokens, self._tokens_a_minute)))

    async def _or_halted(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for a turn, and no longer than until nothing more is sent."""
        turn, halt = asyncio.ensure_future(waiting), asyncio.ensure_future(self._desk.halt.wait())
        try:
            await asyncio.wait((turn, halt), return_when=asyncio.FIRST_COMPLETED)
        finally:
            turn.cancel()
            halt.cancel()

    def _wait(self, failed: Failed, attempt: int) -> float | None:
        """Return how long to wait before the next attempt; None: the server asks for longer than the plan waits."""
        drawn: float = min(FIRST_WAIT_S * 2.0**attempt, MOST_WAIT_S) * random.uniform(0.5, 1.0)
        if not failed.wait_s:  # "at once", or a date that is past: no server that refuses means that
            return drawn
        if failed.wait_s > self.site.limits.most_wait_s:
            return None
        wait = failed.wait_s + random.uniform(0.0, 0.1) * max(failed.wait_s, FIRST_WAIT_S)
        if failed.status in (429, 503, 529):  # the whole provider asks for patience
            self._open_at = max(self._open_at, asyncio.get_running_loop().time() + failed.wait_s)
        return wait

    async def _slept(self, seconds: float) -> bool:
        """Sleep; return whether calls may be sent all the same afterwards."""
        try:
            await asyncio.wait_for(self._desk.halt.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def _count(self, answered: Answered) -> None:
        self._done.answered += 1
        self._done.truncated += answered.finish_reason == "length"
        self._done.refused += answered.finish_reason == "content_filter"

    def _give_up(self, call: Call, failed: Failed) -> None:
        done, name = self._done, call.candidate
        done.failed += 1
        done.reasons[name, failed.reason] += 1
        if failed.wait_s is not None and failed.wait_s > self.site.limits.most_wait_s:
            done.stopped.setdefault(name, f"{failed.reason}: its provider asks to wait longer than most_wait_s")
        if name in self._succeeded and not failed.stops:
            return
        self._in_a_row[name] += 1
        if failed.stops or self._in_a_row[name] >= FAILED_IN_A_ROW:
            done.stopped.setdefault(name, f"{failed.reason}: its other calls would fail likewise")

    def _look_for_a_connection(self, result: Answered | Failed) -> None:
        """Stop a provider's candidates where it was never reached."""
        if not (isinstance(result, Failed) and result.reason == "no_connection"):
            self._unreached = None
        elif self._unreached is not None:
            self._unreached += 1
            if self._unreached >= UNREACHED:
                for name in self.site.candidates:
                    self._done.stopped.setdefault(name, "no_connection: nothing answers at its provider's base_url")
