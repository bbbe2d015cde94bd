"""A `RecordLog` writes the records of a service in a thread of its own, so that a slow disk holds up neither event loop nor worker.

An answer waits for its record: whoever gets a decision has it recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread, current_thread
from typing import Any, Protocol, TypeAlias

from ipr_engine._C import clock_ns
from ipr_engine.decision.decision import Row
from ipr_engine.errors import OverloadError, RecordError
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.decision_cache import DecisionCache
from ipr_engine.serving.queueing import Answer, QueuedRequest, Recordable, RecordWish

MOST = 32  # answers whose records are one write, so that one call hands them over; the first of them waits for the last
IDLE_S = 1.0  # the thread ends when it had nothing to write for so long, so that a log that nobody holds is freed

Deliver: TypeAlias = Callable[[Sequence[tuple[QueuedRequest, Answer]]], None]


class RecordMaking(Protocol):
    """A `RecordMaking` makes records of answers, and writes them; record_maker.py has it."""

    @property
    def keep_prompts(self) -> bool: ...

    def check_id(self, id: object) -> None: ...

    def copied(self, prompt: Any) -> Any: ...

    def record(self, request: QueuedRequest, answer: Recordable) -> Any: ...

    def line(self, record: Any, wish: RecordWish, row: Row) -> bytes: ...

    def can_be_replayed(self, record: Any) -> bool: ...

    def write_each(self, lines: Sequence[bytes]) -> list[Exception | None]: ...

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
                taken = [self._answers.popleft() for _ in range(min(MOST, len(self._answers)))]
            recorded = self._recorded(taken)
            with self._changed:
                self.waiting -= len(taken)
                if not self.waiting:
                    self._changed.notify_all()  # those that flush
            self._deliver(recorded)
            del taken, recorded  # nothing outlives its turn: a swapped bundle is freed while the thread waits

    def _recorded(self, taken: Sequence[tuple[QueuedRequest, Recordable, int]]) -> list[tuple[QueuedRequest, Answer]]:
        """Return the answers whose records are written; of the others, what their callers get instead."""
        done: list[tuple[QueuedRequest, Answer]] = []
        lines: list[tuple[QueuedRequest, Recordable, int, bool, bytes]] = []
        for request, answer, taken_ns in taken:
            try:
                record, line = self._line(request, answer)
                lines.append((request, answer, taken_ns, self.maker.can_be_replayed(record), line))
            except Exception as error:  # whatever it is, the caller waits for it
                done.append((request, error))
        problems = self.maker.write_each([line for *_, line in lines])
        for (request, answer, taken_ns, replayable, _), problem in zip(lines, problems, strict=True):
            if problem is None:
                self._board.recorded(taken_ns, replayable=replayable)
            done.append((request, answer.row if problem is None else problem))
        return done

    def _line(self, request: QueuedRequest, answer: Recordable) -> tuple[Any, bytes]:
        """Return the record of an answer, which the cache keeps beside it, and its line."""
        assert request.record is not None
        record = self.maker.record(request, answer)
        if request.key is not None:
            if self._cache is not None and answer.degraded is None and answer.row.status == "ok":
                self._cache.put(request.key, answer.row, (self, record))
            request.key = None
        return record, self.maker.line(record, request.record, answer.row)

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
