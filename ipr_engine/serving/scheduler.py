"""A `Scheduler` has the queue, the worker thread that empties it forward by forward, and the way back to callers (docs/operations.md)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from threading import Condition, Event, RLock, Thread, current_thread
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeGuard

from ipr_engine._C import clock_ns
from ipr_engine._faults import fault
from ipr_engine.decision.decision import Decision, Row
from ipr_engine.errors import NotServingError, OverloadError, RowError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.queueing import DONE, QUEUED, RUNNING, Answer, Limits, Made, QueuedRequest, Recordable

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

LOGGER = logging.getLogger(__name__)

Answered: TypeAlias = tuple[QueuedRequest, Made]


class Work(Protocol):
    """A `Work` is what the worker does with the requests that wait; forward.py has it."""

    window: int

    @property
    def loaded(self) -> LoadedBundle: ...

    @property
    def compiled(self) -> bool: ...

    @property
    def single_us(self) -> float: ...

    def wait_us(self, prompts: int, running: bool) -> float: ...

    def warm_up(self) -> None: ...

    def sort(
        self, loaded: LoadedBundle, window: Sequence[QueuedRequest], now_ns: int
    ) -> tuple[list[Answered], list[QueuedRequest]]: ...

    def compose(self, waiting: Sequence[QueuedRequest], now_ns: int) -> list[QueuedRequest]: ...

    def foresee(self, batch: Sequence[QueuedRequest], now_ns: int) -> None: ...

    def run(self, loaded: LoadedBundle, batch: Sequence[QueuedRequest]) -> list[Answered]: ...

    def after_fork(self) -> None: ...


class Scheduler:
    """A `Scheduler` takes what is queued, batch by batch, and answers in the callers' loops and threads.

    One lock guards the queue, the requests' states and the open flag; nothing slow happens under it. The worker is a daemon
    thread that ends with `close`; whoever owns the scheduler closes it (the thread itself keeps it alive).

    Attributes:
        worker: the thread, None before the start.
        wanted: the queue's length that wakes the worker, 0 while it works.
        last: prompts of the last forward. in_forward: of the one that runs.
    """

    def __init__(self, work: Work, limits: Limits, board: CounterBoard, cache: DecisionCache | None) -> None:
        self._work = work
        self._limits = limits
        self._board = board
        self._cache = cache
        self._forked = False
        self._reset()

    def _reset(self) -> None:
        self._lock = RLock()  # a garbage collection under it may close this very scheduler
        self._changed = Condition(self._lock)
        self._queue: OrderedDict[QueuedRequest, None] = (
            OrderedDict()
        )  # in order of arrival; any of them may leave at once
        self._closing = False
        self._ready = Event()  # the worker's warm-up is over
        self.worker: Thread | None = None
        self.wanted = 0
        self.last = 0
        self.in_forward = 0

    @property
    def depth(self) -> int:
        """Return how many requests wait."""
        return len(self._queue)

    def start(self, ready: Callable[[], None]) -> None:
        """Start the worker, wait until it has warmed up, then call `ready`; what the warm-up raises is raised here, and closes this.

        Raises:
            NotServingError: closed before, or meanwhile.
        """
        failure = list[BaseException]()
        with self._lock:
            self._check_serving()
            if self.worker is None:
                self._spawn(failure)
        self._ready.wait()
        if failure:
            self.close(drain=False)
            raise failure[0]
        with self._lock:
            self._check_serving()  # closed meanwhile, or another caller's warm-up failed
            ready()

    def _spawn(self, failure: list[BaseException] | None = None) -> None:
        worker = Thread(target=self._run, args=(failure,), name="ipr worker", daemon=True)
        worker.start()
        self.worker = worker

    def submit(self, request: QueuedRequest) -> None:
        """Queue a request; who waits for it must be set before.

        Raises:
            OverloadError: the queue is full, or the wait foreseen is over max_wait_us.
            NotServingError: closed, or the encoder was loaded before a fork.
        """
        with self._lock:
            self._check_serving()
            if len(self._queue) >= self._limits.max_queue:
                raise OverloadError(len(self._queue), self._limits.max_queue)
            if self._limits.max_wait_us is not None and self._queue:  # who is next is taken whatever is foreseen
                predicted_us = self._work.wait_us(len(self._queue) + 1, bool(self.in_forward))
                if predicted_us > self._limits.max_wait_us:
                    raise OverloadError(len(self._queue), self._limits.max_queue, predicted_us)
            if self.worker is None:  # in a forked child
                self._spawn()
            self._queue[request] = None
            request.state = QUEUED
            # the worker is woken only where it waits, and for as many as it waits for
            if 0 < self.wanted <= len(self._queue):
                self._changed.notify()

    def _check_serving(self) -> None:
        """Refuse to serve once closed, or after a fork that the encoder's threads did not survive."""
        if self._closing:
            raise NotServingError("closed: no request is taken any more; make a new engine")
        if self._forked and not self._work.compiled:
            raise NotServingError(
                "this process was forked after the engine was loaded, and the encoder's threads did not come along; "
                "load the engine in the child"
            )

    def withdraw(self, request: QueuedRequest) -> bool:
        """Take a request back, which frees its place; False when it is answered already. One in a forward is not stopped."""
        with self._lock:
            if request.state == DONE:
                return False
            self._queue.pop(request, None)
            request.state = DONE
            return True

    def take_no_more(self) -> None:
        """Refuse requests from now on."""
        with self._lock:
            self._closing = True

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> bool:
        """Take no more requests, finish those queued (drain) or refuse them, end the worker.

        Returns:
            Whether the worker has ended within timeout_s.
        """
        with self._lock:
            self._closing = True
            refused = [] if drain else list(self._queue)
            for request in refused:  # in one step with leaving the queue: the worker may have them in its window
                del self._queue[request]
                request.state = DONE
            worker = self.worker
            self._changed.notify_all()
        if refused:
            error = "closed before this request was decided"
            self.deliver([(request, NotServingError(error)) for request in refused])
        if worker is None or worker is current_thread():  # a finalizer may run in the worker itself
            return True
        worker.join(timeout_s)
        return not worker.is_alive()

    def after_fork(self) -> None:
        """Begin anew in a forked child: the worker, its lock and the parent's requests did not come along."""
        was_closed = self._closing
        self._reset()
        self._closing, self._forked = was_closed, True
        self._work.after_fork()
        self._board.after_fork()
        if self._cache is not None:
            self._cache.after_fork()

    def _run(self, failure: list[BaseException] | None) -> None:
        if failure is not None:
            try:
                self._work.warm_up()
            except BaseException as error:
                failure.append(error)
                self.take_no_more()
            self._ready.set()
        while self._await_requests():
            self._turn()

    def _await_requests(self) -> bool:
        """Wait for requests; False when there are none left and the scheduler closes.

        After a forward of several, their callers often ask again at once: the worker lets as many come together, for at
        most wait_fraction of a forward of one. Otherwise the first request to come is taken at once.
        """
        with self._lock:
            if self.last > 1:
                until = clock_ns() + int(self._limits.wait_fraction * self._work.single_us * 1e3)
                self.wanted = min(self.last, self._limits.max_queue)
                while len(self._queue) < self.wanted and not self._closing and (left := until - clock_ns()) > 0:
                    self._changed.wait(left / 1e9)
            while not self._queue and not self._closing:
                self.wanted = 1
                self._changed.wait()
            self.wanted = 0
            return bool(self._queue)

    def _turn(self) -> None:
        """Run one forward. Nothing of it outlives the turn, so that a swapped bundle is freed while the worker waits."""
        with self._lock:
            window = list(islice(self._queue, self._work.window))
        try:
            loaded = self._work.loaded
            batch = self._take(loaded, window)
            self.last = len(batch)
            if batch:
                window = batch  # who is concerned if something fails from here on
                self.finish(self._work.run(loaded, batch))
        except Exception as error:  # a fault of our own: these callers learn of it, and the worker goes on
            LOGGER.error("the worker failed on %d requests: %s", len(window), fault(error))
            self.finish([(request, error) for request in window])
        finally:
            self.in_forward = 0

    def _take(self, loaded: LoadedBundle, window: list[QueuedRequest]) -> list[QueuedRequest]:
        """Claim those of the window that go into the next forward; answer those that need none."""
        now = clock_ns()
        answered, waiting = self._work.sort(loaded, window, now)
        if answered:
            self.finish(answered)
        batch = self._work.compose(waiting, now)
        claimed = []  # some may have left the queue meanwhile: cancelled, or past their deadline
        with self._lock:
            for request in batch:
                if request.state == QUEUED:
                    del self._queue[request]
                    request.state = RUNNING
                    claimed.append(request)
            self.in_forward = len(claimed)
            begun = clock_ns()
            if claimed:
                self._work.foresee(claimed, begun)
        for request in claimed:
            self._board.stages["queue"].add(begun - request.begun_ns)
        return claimed

    def finish(self, answers: Iterable[Answered]) -> None:
        """Answer those who still wait."""
        wanted = []
        with self._lock:
            for request, answer in answers:
                if request.state != DONE:
                    self._queue.pop(request, None)
                    request.state = DONE
                    wanted.append((request, answer))
        self.deliver(wanted)

    def deliver(self, answers: Sequence[Answered]) -> None:
        """Hand answers over: one call into each event loop, one lock released for each thread. Every request is DONE.

        One that is recorded comes back here once its record is written.
        """
        by_loop: dict[AbstractEventLoop, list[tuple[QueuedRequest, Answer]]] = {}
        for request, answer in answers:
            if isinstance(answer, Recordable):
                assert request.record is not None
                request.record.log.take(request, answer)
                continue
            if self._cache is not None and request.key is not None and _is_kept(answer):
                self._cache.put(request.key, answer)
            if request.loop is not None:
                by_loop.setdefault(request.loop, []).append((request, answer))
            elif request.ready is not None:
                request.answer = answer
                request.ready.release()
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._arrive, mine)
            except RuntimeError:  # the loop is closed: nobody waits there any more
                self._board.event("undelivered", len(mine))

    def _arrive(self, answers: Sequence[tuple[QueuedRequest, Answer]]) -> None:
        for request, answer in answers:
            self.resolve(request, answer)

    def resolve(self, request: QueuedRequest, answer: Answer) -> None:
        """Give the future its answer, in the caller's event loop, unless it was cancelled meanwhile."""
        future = request.future
        if future is None:
            return
        if future.done():  # cancelled after it was decided, before it arrived
            self._board.event("cancelled")
            return
        arrived = self.arrived(request, answer)
        if isinstance(arrived, Exception):
            future.set_exception(arrived)
        else:
            future.set_result(arrived)

    def arrived(self, request: QueuedRequest, answer: Answer) -> Answer:
        """Count an answer as it reaches its caller, and turn a failed row into the RowError asked for."""
        self._board.arrived(answer, request.begun_ns, request.way)
        return answer if isinstance(answer, Exception) else checked(answer, request.on_error)


def checked(decision: Row, on_error: str) -> Answer:
    """Return the decision, or the RowError that `on_error` asks for in place of one that failed."""
    if decision.degraded is not None or on_error == "status" or decision.status == "ok":
        return decision
    return RowError([0], [decision.status])


def _is_kept(answer: Answer) -> TypeGuard[Decision]:
    """Return whether the cache keeps an answer: a decision of the engine's own, not a fallback's."""
    return isinstance(answer, Decision) and answer.degraded is None and answer.status == "ok"
