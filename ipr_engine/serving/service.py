"""A `Service` stands behind both faces: one queue, one worker, one set of counters, whoever asks.

A request is checked, and answered at once where no encoder has to run in Python; else it is queued.
"""

from __future__ import annotations

import atexit
import os
import weakref
from asyncio import get_running_loop
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from ipr_engine._C import clock_ns
from ipr_engine._validate import number
from ipr_engine.decision.decision import Decision, Row
from ipr_engine.errors import InvalidInputError, IprError, NotServingError, OverloadError, RecordError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import ParsedRequest, Prompt, parse_request
from ipr_engine.request.arguments import whole_counts
from ipr_engine.request.asked_tasks import asked_tasks
from ipr_engine.request.intake import check_readable
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides
from ipr_engine.request.route_request import REQUEST_OPTIONS, RouteOptions, RouteRequest, check_on_error, policy_options
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.fallback import answer_late, make_fallback
from ipr_engine.serving.forward import Forwards, ServedEngine
from ipr_engine.serving.metrics import CacheCounts, Counters
from ipr_engine.serving.queueing import DONE, Limits, Made, QueuedRequest, Recordable, RecordWish, read_limits
from ipr_engine.serving.record_log import RecordLog, RecordMaking
from ipr_engine.serving.scheduler import Scheduler, checked

if TYPE_CHECKING:
    from asyncio import Future

_KEPT_APART = frozenset(("task",))  # what may be given of a prompt whose decision is kept: its key has it
MOST_US = 1e12  # of a budget: eleven days
EXIT_TIMEOUT_S = (
    5.0  # the exit waits so long for a forward that runs: a thread that ends in native code may abort the process
)
_SCHEDULERS: weakref.WeakSet[Scheduler] = weakref.WeakSet()  # those of the services that live
_LOGS: weakref.WeakSet[RecordLog] = weakref.WeakSet()


class Service:
    """A `Service` is an engine under many callers at once; `BatchingEngine` and `AsyncEngine` are its faces.

    Attributes:
        serving: whether prompts are taken.
        engine: what decides. limits: of the queue and of a batch.
        board: the counts. cache: None for none.
        forwards, scheduler: what the worker runs, and when. logs: of its recorders.
    """

    def __init__(
        self,
        engine: ServedEngine,
        *,
        fallback: object = None,
        cache_entries: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> None:
        """Plan the service; the arguments are those of `BatchingEngine`."""
        self.serving = False
        self.engine = engine
        self.cache = DecisionCache(cache_entries) if cache_entries != 0 or isinstance(cache_entries, bool) else None
        self.limits = read_limits(limits)
        self.board = CounterBoard()
        self._fallback = made = make_fallback(fallback, engine.loaded.bundle)
        self.forwards = Forwards(engine, self.limits, self.board, lambda late, loaded: answer_late(late, made, loaded))
        self.scheduler = Scheduler(self.forwards, self.limits, self.board, self.cache)
        self.logs: weakref.WeakSet[RecordLog] = weakref.WeakSet()
        _SCHEDULERS.add(self.scheduler)
        self._ends = weakref.finalize(self, self.scheduler.close, drain=False, timeout_s=0.0)
        self._ends.atexit = False  # _at_exit waits for the worker then

    def start(self) -> None:
        """Warm up and serve; return when ready."""
        self.scheduler.start(self._open)

    def _open(self) -> None:
        self.serving = True

    def close(self, *, drain: bool, timeout_s: float | None) -> bool:
        """Take no more requests, decide those that wait (drain) or refuse them, and write the records of what was decided.

        Returns:
            Whether the worker has ended, and every such record is written.
        """
        until = None if timeout_s is None else clock_ns() + int(timeout_s * 1e9)
        self.scheduler.take_no_more()
        self.serving = False  # in this order: a start at the same time does not set it again
        ended = [self.scheduler.close(drain=drain, timeout_s=timeout_s)]
        for log in list(self.logs):
            ended.append(log.flush(None if until is None else max(0.0, (until - clock_ns()) / 1e9)))
        return all(ended)

    def record_log(self, maker: RecordMaking) -> RecordLog:
        """Make the log of a recorder."""
        log = RecordLog(maker, self.scheduler.deliver, self.board, self.cache, self.limits.max_queue)
        self.logs.add(log)
        _LOGS.add(log)
        return log

    def begin(
        self,
        prompt: Prompt,
        policy: Policy | None,
        budget_us: float | None,
        options: RouteOptions,
        on_error: str = "raise",
    ) -> Row | QueuedRequest:
        """Return the decision, where it can be made here and now, or a request to be queued.

        This is the whole path of the static tier, in the caller's thread, hence straight-line code.

        Raises:
            InvalidInputError, RowError, NotServingError: as `BatchingEngine.route`.
        """
        begun = clock_ns()
        if not self.serving:
            self._refuse()
        loaded = self.engine.loaded  # read once: a swap meanwhile concerns the next request
        try:
            if budget_us is not None:
                _check_budget(budget_us)
            if on_error != "raise":
                check_on_error(on_error)
            if self.cache is not None or not loaded.routes_text:
                size = None  # a recording on a GPU waits for its device, and a queue gathers batches for it
            elif type(prompt) is str:
                size = len(prompt)
            else:
                size = _length(parse_request(prompt)) if type(prompt) is ParsedRequest else None
            if size is not None and size <= self.limits.inline_chars:
                decision = loaded.route_one(prompt, policy, options, "status")
                if decision is not None:
                    self.board.decided(decision)
                    self.board.inline.since(begun)
                    return decision if type(decision) is Decision else _checked(decision, on_error)
            return self._begin(loaded, prompt, policy, budget_us, options, on_error, begun)
        except InvalidInputError:
            self.board.event("invalid")
            raise

    def begin_recorded(
        self,
        log: RecordLog,
        wish: RecordWish,
        prompt: Prompt,
        policy: Policy | None,
        budget_us: float | None,
        options: RouteOptions,
        on_error: str = "raise",
    ) -> QueuedRequest:
        """Do as `begin` does, for a request that is recorded: one that can be decided here and now comes back with its answer.

        log: of the wish.

        Raises:
            as `begin`, but for RowError. RecordError: the recorder is closed.
            OverloadError: too many decisions wait for their records.
        """
        begun = clock_ns()
        if not self.serving:
            self._refuse()
        try:
            log.admit(wish)
            if budget_us is not None:
                _check_budget(budget_us)
            check_on_error(on_error)
            made = self._begin(self.engine.loaded, prompt, policy, budget_us, options, on_error, begun, wish)
            log.keep(wish, prompt)
        except (InvalidInputError, OverloadError, RecordError) as error:
            self.board.error(error)
            raise
        assert isinstance(made, QueuedRequest)
        return made

    def _begin(
        self,
        loaded: LoadedBundle,
        prompt: Prompt,
        policy: Policy | None,
        budget_us: float | None,
        options: RouteOptions,
        on_error: str,
        begun: int,
        wish: RecordWish | None = None,
    ) -> Row | QueuedRequest:
        policy = loaded.resolve(policy, policy_options(options) if options else options)
        given = {name: value for name in REQUEST_OPTIONS if (value := options.get(name)) is not None}
        text = ParsedRequest.of_text(prompt) if type(prompt) is str else parse_request(prompt)
        short = _length(text) <= self.limits.inline_chars
        task = None
        if "task" in given:  # a wrong one is refused here; what decides tells whether it knows it
            (asked,) = asked_tasks(given["task"], 1, ()) or (None,)
            task = None if asked is None else asked.name
        plain = given.keys() <= _KEPT_APART and not text.uncountable
        key = None
        if self.cache is not None and plain and short:
            key = self.cache.key(text, policy, task)
            found = self.cache.get(key, loaded.hash, None if wish is None else wish.log)
            if found is not None:
                decision, kept = found
                if wish is not None and kept is not None:
                    return _decided(Recordable(decision, record=kept[1]), text, policy, begun, wish, way="cache")
                self.board.decided(decision)
                self.board.cached.since(begun)
                return decision
        if short and loaded.routes_text:
            here = RouteRequest(text, policy, given)
            if wish is not None:
                rows = loaded.walk_here(here, keep_x=True)
                if rows is not None:
                    made = _decided(Recordable(rows[0], loaded, rows), text, policy, begun, wish, way="inline")
                    made.key, made.on_error = key, on_error
                    return made
            elif (row := loaded.route_here(here)) is not None:
                self.board.decided(row)
                self.board.inline.since(begun)
                if key is not None and self.cache is not None and row.status == "ok":
                    self.cache.put(key, row)
                return _checked(row, on_error)
        billed_tokens = given.get("billed_tokens")
        check_readable(text, "prompt", billed_tokens, loaded.bundle, policy)
        if billed_tokens is not None:
            billed_tokens = int(whole_counts(billed_tokens, 1).item())
        overrides = NO_OVERRIDES
        if given:
            overrides = RequestOverrides.of(given, 1, loaded.bundle.names, policy.prices).copied()
        queued = QueuedRequest(
            text,
            policy,
            begun_ns=begun,
            budget_us=budget_us,
            deadline_ns=None if budget_us is None else begun + int(budget_us * 1e3),
            billed_tokens=billed_tokens,
            overrides=overrides,
            task=task,
            on_error=on_error,
            key=key,
            record=wish,
        )
        if budget_us is not None and self._fallback is not None:
            queued.fallback = self._fallback.prepare(queued, loaded)
        return queued

    def _refuse(self) -> NoReturn:
        self.board.event("not_serving")
        raise NotServingError("not started, or closed: enter it (`with ... as serving`), or call start() first")

    def submit(self, request: QueuedRequest) -> None:
        """Queue what `begin` gave; who waits for it must be set before. Of one that is decided already the record is written."""
        if request.answer is not None:
            self.scheduler.deliver([(request, request.answer)])
            return
        try:
            self.scheduler.submit(request)
        except IprError as error:
            self.board.error(error)
            raise

    async def answered(self, request: QueuedRequest) -> Row:
        """Submit what `begin` gave, and wait for its answer, in a task."""
        loop = get_running_loop()
        future: Future[Row] = loop.create_future()
        request.loop, request.future = loop, future  # before it is queued: the worker may be done at once
        self.submit(request)
        timer = None
        if request.deadline_ns is not None:
            timer = loop.call_later(max(0.0, (request.deadline_ns - clock_ns()) / 1e9), self.expire, request)
        try:
            return await future
        except BaseException:
            self.cancel(request)  # nothing where the request itself failed: it is answered then
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def submit_in_thread(self, request: QueuedRequest) -> None:
        """Submit what `begin` gave, for a thread that will wait for its answer."""
        request.ready = Lock()  # taken again it blocks until it is released; an Event would make a condition as well
        request.ready.acquire()
        self.submit(request)

    def await_in_thread(self, request: QueuedRequest) -> Row:
        """Block the calling thread until a submitted request is answered."""
        ready = request.ready
        assert ready is not None
        try:
            if request.deadline_ns is None:
                ready.acquire()
            elif not ready.acquire(timeout=max(0.0, (request.deadline_ns - clock_ns()) / 1e9)):
                self.expire(request)  # nothing where the worker was faster by a hair
                ready.acquire()
        except BaseException:  # KeyboardInterrupt, say: the caller is gone
            self.cancel(request)
            raise
        answer = request.answer
        assert answer is not None
        assert not isinstance(answer, Recordable)  # it is written by now
        result = self.scheduler.arrived(request, answer)
        if isinstance(result, Exception):
            raise result
        return result

    def cancel(self, request: QueuedRequest) -> None:
        """Free the request's place in the queue: its caller waits no longer."""
        if self.scheduler.withdraw(request):
            self.board.event("cancelled")

    def expire(self, request: QueuedRequest) -> None:
        """Answer a request whose budget is over, unless it is answered already."""
        if not self.scheduler.withdraw(request):
            return
        try:
            late: Made = answer_late(request, self._fallback, self.engine.loaded)
        except Exception as error:  # whatever it is, the caller waits for it
            late = error
        self.scheduler.deliver([(request, late)])

    def counters(self) -> Counters:
        """Take a snapshot of all counts."""
        loaded = self.engine.loaded
        return self.board.snapshot(
            queue_depth=self.scheduler.depth,
            queue_limit=self.limits.max_queue,
            in_forward=self.scheduler.in_forward,
            cache=CacheCounts() if self.cache is None else self.cache.counts(),
            records_waiting=sum(log.waiting for log in list(self.logs)),
            swaps=self.engine.swaps,
            bundle_hash=loaded.hash,
        )

    @property
    def summary(self) -> str:
        """Return the engine, whether it is served, and how many wait, for the repr of a face."""
        state = "serving" if self.serving else "not serving"
        return f"{self.engine!r}, {state}, {self.scheduler.depth} of {self.limits.max_queue} waiting"


def _decided(
    answer: Recordable, text: ParsedRequest, policy: Policy, begun: int, wish: RecordWish, *, way: str
) -> QueuedRequest:
    """Return the request of an answer that only its record is to be made of."""
    return QueuedRequest(text, policy, begun_ns=begun, record=wish, way=way, state=DONE, answer=answer)


def _length(request: ParsedRequest) -> int:
    """Return its characters."""
    return len(request.encoded) + sum(map(len, request.billed_only))


def _checked(decision: Row, on_error: str) -> Row:
    result = checked(decision, on_error)
    if isinstance(result, Exception):
        raise result
    return result


def _check_budget(budget_us: float) -> None:
    if not 0.0 < number("budget_us", budget_us) <= MOST_US:
        raise InvalidInputError(
            f"budget_us: expected microseconds above 0, got {budget_us!r}; leave it out for no limit"
        )


def _at_exit() -> None:
    """End the workers with the process, so that none ends inside of native code."""
    for scheduler in list(_SCHEDULERS):
        scheduler.close(drain=False, timeout_s=EXIT_TIMEOUT_S)
    for log in list(_LOGS):
        log.close(EXIT_TIMEOUT_S)


def _in_child() -> None:
    """Begin anew in a forked child: threads do not come along."""
    for scheduler in list(_SCHEDULERS):
        scheduler.after_fork()
    for log in list(_LOGS):
        log.after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_child)
