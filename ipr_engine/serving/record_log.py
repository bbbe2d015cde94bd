"""A `RecordLog` writes the records of a service in a thread of its own, so that a slow disk holds up neither event loop nor worker.

An answer waits for its record: whoever gets a decision has it recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread, current_thread
from typing import Any, Protocol, TypeAlias

from ipr_engine._C import clock_ns
from ipr_engine.errors import IprError, OverloadError, RecordError
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.queueing import Answer, QueuedRequest, Recordable, RecordWish

IDLE_S = 1.0  # the thread ends when it had nothing to write for so long, so that a log that nobody holds is freed

Deliver: TypeAlias = Callable[[Sequence[tuple[QueuedRequest, Answer]]], None]


class RecordMaking(Protocol):
    """A `RecordMaking` makes records of answers, and writes them; record_maker.py has it."""

    @property
    def keep_prompts(self) -> bool: ...

    def check_id(self, id: object) -> None: ...

    def copied(self, prompt: Any) -> Any: ...

    def record(self, request: QueuedRequest, answer: Recordable) -> Any: ...

    def write(self, record: Any, wish: RecordWish) -> bool: ...

    def close(self) -> None: ...

    def after_fork(self) -> None: ...


class RecordLog:
    """A `RecordLog` takes answers, writes their records in the order in which they came, and hands the answers over.

    Attributes:
        maker: what makes records and writes them.
        waiting: answers whose record is not written yet.
    """

    def __init__(
        self,
        maker: RecordMaking,
        deliver: Deliver,
        board: CounterBoard,
        cache: DecisionCache | None,
        limit: int,
    ) -> None:
        """Begin without a thread; the first record starts it.

        Args:
            deliver: hands answers over to their callers.
            limit: answers that may wait for their record before requests are refused.
        """
        self.maker = maker
        self._deliver = deliver
        self._board = board
        self._cache = cache
        self._limit = limit
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._changed = Condition()
        self._answers: deque[tuple[QueuedRequest, Recordable, int]] = deque()
        self._thread: Thread | None = None
        self.waiting = 0

    def admit(self, wish: RecordWish) -> None:
        """Refuse a request before it is decided: what could not be recorded is not decided.

        Raises:
            InvalidInputError: its id. RecordError: closed. OverloadError: too many answers wait for their records.
        """
        self.maker.check_id(wish.id)
        if self._closed:
            raise RecordError("to: the recorder is closed; make a new one")
        if self.waiting >= self._limit:
            raise OverloadError(self.waiting, self._limit)

    def keep(self, wish: RecordWish, prompt: Any) -> None:
        """Copy the prompt, where it is part of the record."""
        if self.maker.keep_prompts:
            wish.prompt = self.maker.copied(prompt)

    def take(self, request: QueuedRequest, answer: Recordable) -> None:
        """Write the record of an answer, soon, then hand the answer over."""
        with self._changed:
            if not self._closed:
                self._answers.append((request, answer, clock_ns()))
                self.waiting += 1
                if self._thread is not None:
                    self._changed.notify_all()  # the thread, and not only who flushes
                    return
                if self._started():
                    return
                self._answers.pop()
                self.waiting -= 1
        why = "the recorder was closed" if self._closed else "no thread could be started"
        self._deliver([(request, RecordError(f"to: {why} before the record of this decision was written"))])

    def _started(self) -> bool:
        thread = Thread(target=self._run, name="ipr records", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system, or an interpreter that ends, gives no more of them
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._answers and not self._closed:
                    self._changed.wait(IDLE_S)
                if not self._answers:
                    if self._thread is current_thread():
                        self._thread = None
                    return
                request, answer, taken_ns = self._answers.popleft()
            self._deliver([(request, self._recorded(request, answer, taken_ns))])
            del request, answer  # nothing outlives its turn: a swapped bundle is freed while the thread waits
            with self._changed:
                self.waiting -= 1
                if not self.waiting:
                    self._changed.notify_all()  # those that flush

    def _recorded(self, request: QueuedRequest, answer: Recordable, taken_ns: int) -> Answer:
        """Return the answer, its record being written; else what its caller gets instead."""
        wish = request.record
        assert wish is not None
        try:
            record = self.maker.record(request, answer)
            if request.key is not None:
                if self._cache is not None and answer.degraded is None and answer.row.status == "ok":
                    self._cache.put(request.key, answer.row, (self, record))
                request.key = None
            replayable = self.maker.write(record, wish)
        except IprError as error:
            return error
        except BaseException as error:  # of a sink of anyone's making; its text may hold the line
            failed = RecordError(f"to: the record could not be written: {type(error).__name__}")
            failed.__cause__ = error
            return failed
        self._board.recorded(taken_ns, replayable=replayable)
        return answer.row

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until every answer that came has its record, at most timeout_s; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.waiting, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Take no more answers, write the records of those that wait, close the file; return whether that was done in time."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                return False
        self.maker.close()
        return True

    def after_fork(self) -> None:
        """Begin anew in a forked child: the thread and the parent's answers did not come along."""
        self._reset()
        self.maker.after_fork()
