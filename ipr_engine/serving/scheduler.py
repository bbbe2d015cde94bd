"""The queue and the one worker thread that empties it, forward by forward (docs/operations.md)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from threading import Condition, Event, RLock, Thread, current_thread

from ipr_engine._C import clock_ns
from ipr_engine.decision import Decision
from ipr_engine.engine import Engine
from ipr_engine.errors import DeviceLostError, NotServingError, OverloadError
from ipr_engine.loaded_bundle import LoadedBundle
from ipr_engine.serving import fork_hooks
from ipr_engine.serving.admission import Admission
from ipr_engine.serving.batching import WINDOW, compose, padded_tokens
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.delivery import Delivery
from ipr_engine.serving.fallback import Fallback, answer_late
from ipr_engine.serving.forward import measure, run_forward
from ipr_engine.serving.forward_cost import ForwardCost
from ipr_engine.serving.queue_limits import Limits
from ipr_engine.serving.request import DONE, QUEUED, RUNNING, Outcome, Request
from ipr_engine.serving.warm_up import warm_up

LOGGER = logging.getLogger(__name__)
FRESH = 0.2  # weight of a forward in the mean length of a prompt
PROBE = 16  # every 16th request that the estimate gives up is tried all the same, so that a wrong estimate is corrected


class Scheduler:
    """Takes what is queued, batch by batch; answers in the callers' loops and threads.

    One lock guards the queue, the requests' states and the open flag; nothing slow happens under it. The worker is a daemon
    thread that ends with `close`; whoever owns the scheduler closes it (the thread itself keeps it alive).
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        board: CounterBoard,
        cache: DecisionCache | None,
        fallback: Fallback | None,
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._board = board
        self._cache = cache
        self.delivery = Delivery(board, cache)
        self._fallback = fallback
        self._cost = ForwardCost("")
        self._given_up = 0
        self._forked = False
        self._reset()
        fork_hooks.watch(self)

    def _reset(self) -> None:
        self._lock = RLock()  # a garbage collection under it may close this very scheduler
        self._changed = Condition(self._lock)
        self._queue: OrderedDict[Request, None] = OrderedDict()  # in order of arrival; any of them may leave at once
        self._wanted = 0  # queue length that wakes the worker, 0 while it works
        self._in_forward = 0
        self._forward_ends_ns = 0  # as foreseen
        self._mean_tokens = 0.0  # of a prompt with its padding, as they last came
        self._last = 0  # prompts of the last forward
        self._closing = False
        self._worker: Thread | None = None
        self._ready = Event()  # the worker's warm-up is over

    # -- callers' side

    @property
    def depth(self) -> int:
        return len(self._queue)

    @property
    def in_forward(self) -> int:
        return self._in_forward

    def start(self, admission: Admission) -> None:
        """Start the worker, wait until it has warmed up, then serve; what the warm-up raises is raised here, and closes this."""
        failure = list[BaseException]()
        with self._lock:
            self._check_serving()
            if self._worker is None:
                self._spawn(failure)
        self._ready.wait()
        if failure:
            self.close(drain=False)
            raise failure[0]
        with self._lock:
            self._check_serving()  # closed meanwhile, or another caller's warm-up failed
            admission.serving = True

    def _spawn(self, failure: list[BaseException] | None = None) -> None:
        worker = Thread(target=self._work, args=(failure,), name="ipr worker", daemon=True)
        worker.start()
        self._worker = worker

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            OverloadError: the queue is full, or the wait foreseen is over max_wait_us.
            NotServingError: closed, or the encoder was loaded before a fork.
        """
        with self._lock:
            self._check_serving()
            if len(self._queue) >= self._limits.max_queue:
                raise OverloadError(len(self._queue), self._limits.max_queue)
            if self._limits.max_wait_us is not None and self._queue:  # who is next is taken whatever is foreseen
                predicted_us = self._wait_us(len(self._queue) + 1)
                if predicted_us > self._limits.max_wait_us:
                    raise OverloadError(len(self._queue), self._limits.max_queue, predicted_us)
            if self._worker is None:  # in a forked child
                self._spawn()
            self._queue[request] = None
            request.state = QUEUED
            if 0 < self._wanted <= len(self._queue):
                self._changed.notify()

    def _wait_us(self, prompts: int) -> float:
        """Until as many prompts, of the length of those before, are decided: the rest of this forward, and those to come."""
        cost, forwards = self._cost, -(-prompts // self._limits.max_batch)
        running = max(0.0, (self._forward_ends_ns - clock_ns()) / 1e3) if self._in_forward else 0.0
        return running + forwards * cost.fixed_us + prompts * self._mean_tokens * cost.token_us

    def _check_serving(self) -> None:
        if self._closing:
            raise NotServingError("closed: no request is taken any more; make a new engine")
        second = self._engine.second_encoder
        threaded = self._engine.encoder.native is None or (second is not None and second.native is None)
        if self._forked and threaded:
            raise NotServingError(
                "this process was forked after the engine was loaded, and the encoder's threads did not come along; "
                "load the engine in the child"
            )

    def withdraw(self, request: Request) -> bool:
        """Take a request back, which frees its place; False when it is answered already. One in a forward is not stopped."""
        with self._lock:
            if request.state == DONE:
                return False
            self._queue.pop(request, None)
            request.state = DONE
            return True

    def expired(self, request: Request) -> Decision:
        """The fallback's answer to a request that was withdrawn because its budget is over, or a DeadlineError."""
        return answer_late(request, self._fallback, self._engine.loaded, clock_ns())

    def take_no_more(self) -> None:
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
            worker = self._worker
            self._changed.notify_all()
        if refused:
            error = "closed before this request was decided"
            self.delivery.deliver([(request, NotServingError(error)) for request in refused])
        if worker is None or worker is current_thread():
            return True
        worker.join(timeout_s)
        return not worker.is_alive()

    def after_fork(self) -> None:
        """In a forked child: the worker, its lock and the parent's requests did not come along."""
        was_closed = self._closing
        self._reset()
        self._closing, self._forked = was_closed, True
        self._board.after_fork()
        if self._cache is not None:
            self._cache.after_fork()

    # -- the worker

    def _work(self, failure: list[BaseException] | None) -> None:
        if failure is not None:
            try:
                self._cost = warm_up(self._engine.loaded)
            except BaseException as error:
                failure.append(error)
                with self._lock:
                    self._closing = True
            self._ready.set()
        while self._await_work():
            self._turn()

    def _await_work(self) -> bool:
        """Wait for requests; False when there are none left and the scheduler closes.

        After a forward of several, their callers often ask again at once: the worker lets as many come together, for at
        most wait_fraction of a forward of one. Otherwise the first request to come is taken at once.
        """
        with self._lock:
            if self._last > 1:
                until = clock_ns() + int(self._limits.wait_fraction * self._single_us * 1e3)
                self._wanted = min(self._last, self._limits.max_queue)
                while len(self._queue) < self._wanted and not self._closing and (left := until - clock_ns()) > 0:
                    self._changed.wait(left / 1e9)
            while not self._queue and not self._closing:
                self._wanted = 1
                self._changed.wait()
            self._wanted = 0
            return bool(self._queue)

    @property
    def _single_us(self) -> float:
        """A forward of one of the prompts as they last came."""
        return self._cost.predict(round(self._mean_tokens)) if self._mean_tokens else 0.0

    def _turn(self) -> None:
        """One forward. Nothing of it outlives the turn, so that a swapped bundle is freed while the worker waits."""
        with self._lock:
            window = list(islice(self._queue, WINDOW * self._limits.max_batch))
        try:
            loaded = self._engine.loaded
            batch = self._take(loaded, window)
            self._last = len(batch)
            if batch:
                window = batch  # who is concerned if something fails from here on
                self._finish(self._forward(loaded, batch))
        except Exception as error:  # a fault of our own: these callers learn of it, and the worker goes on
            LOGGER.exception("the worker failed on %d requests", len(window))
            self._finish([(request, error) for request in window])
        finally:
            self._in_forward = 0

    def _forward(self, loaded: LoadedBundle, batch: list[Request]) -> list[tuple[Request, Outcome]]:
        try:
            return run_forward(loaded, batch, self._cost, self._board)
        except DeviceLostError as error:  # as Engine.route does: the cpu_fallback serves from now on, this batch too
            cpu_fallback = self._engine._fail_over(loaded, error)
            self._cost = ForwardCost(cpu_fallback.encoder_identity)  # the same model, not the same speed
            return run_forward(cpu_fallback, batch, self._cost, self._board)

    def _take(self, loaded: LoadedBundle, window: list[Request]) -> list[Request]:
        """Which of the window go into the next forward, claimed. Bad prompts and passed deadlines are answered here."""
        if self._cost.encoder != loaded.encoder_identity:
            self._cost = ForwardCost(loaded.encoder_identity)
        done: list[tuple[Request, Outcome]] = []
        waiting = []
        now = clock_ns()
        for request in window:
            if request.state == DONE:
                continue
            problem = None if request.encoder == loaded.encoder_identity else measure(loaded, request)
            if problem is not None:
                done.append((request, problem))
            elif request.deadline_ns is not None and self._hopeless(request, now):
                done.append((request, self._late(request, loaded)))
            else:
                waiting.append(request)
        if done:
            self._finish(done)
        if not waiting:
            return []
        batch = compose(waiting, self._limits, self._cost, now)
        claimed = []
        with self._lock:
            for request in batch:
                if request.state == QUEUED:
                    del self._queue[request]
                    request.state = RUNNING
                    claimed.append(request)
            self._in_forward = len(claimed)
            begun = clock_ns()
            if claimed:
                padded = padded_tokens(claimed)
                self._forward_ends_ns = begun + int(1e3 * self._cost.predict(padded))
                self._mean_tokens += (padded / len(claimed) - self._mean_tokens) * (FRESH if self._mean_tokens else 1.0)
        for request in claimed:
            self._board.stages["queue"].add(begun - request.begun_ns)
        return claimed

    def _hopeless(self, request: Request, now_ns: int) -> bool:
        """Its deadline is past, or would be before a forward of it alone ends."""
        slack = request.slack_us(now_ns)
        if slack <= 0:
            return True
        if self._cost.predict(request.tokens) <= slack:
            return False
        self._given_up += 1
        return self._given_up % PROBE != 0

    def _late(self, request: Request, loaded: LoadedBundle) -> Outcome:
        try:
            return answer_late(request, self._fallback, loaded, clock_ns())
        except Exception as error:
            return error

    def _finish(self, outcomes: Iterable[tuple[Request, Outcome]]) -> None:
        """Answer those who still wait."""
        wanted = []
        with self._lock:
            for request, outcome in outcomes:
                if request.state != DONE:
                    self._queue.pop(request, None)
                    request.state = DONE
                    wanted.append((request, outcome))
        self.delivery.deliver(wanted)
