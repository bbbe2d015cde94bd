"""A `Ledger` is the one file, SQLite, of a collection: its prompts, every call once, what it cost, its answer and its grades.

One process writes at a time, and one thread of it. What waits is committed together, and is on the disk before it counts: a call is
noted, with the most that it may cost, before it is sent; a process that is killed has lost nothing but the answers of calls in flight,
and these are charged at their most.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ipr_engine.errors import InvalidInputError, IprError

FORMAT = 1
LEDGER = "ledger.sqlite"  # the file, in the folder of a collection
MOST_TOGETHER = 512  # pieces of work in one commit
FROM_ANOTHER = 0  # the attempt of an answer that another ledger paid
PAGE = 256  # rows read at a time: memory does not grow with the ledger
Work = Callable[[sqlite3.Connection], Any]
Result = TypeVar("Result")

_SCHEMA = """
CREATE TABLE ledger (format INTEGER NOT NULL);
CREATE TABLE run (
    id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, plan_sha256 TEXT NOT NULL, version TEXT NOT NULL,
    budget_nanousd INTEGER NOT NULL, outcome TEXT
);
CREATE TABLE question (
    id INTEGER PRIMARY KEY, prompt_id TEXT NOT NULL UNIQUE, turn INTEGER NOT NULL, prompt TEXT NOT NULL, body TEXT NOT NULL,
    reference TEXT, grader TEXT, dataset TEXT, split TEXT, question_key TEXT, labels TEXT, run INTEGER NOT NULL, task TEXT
);
CREATE INDEX question_in_turn ON question (turn, id);
CREATE TABLE price (
    id INTEGER PRIMARY KEY, candidate TEXT NOT NULL, date TEXT NOT NULL, price TEXT NOT NULL, UNIQUE (candidate, date, price)
);
CREATE TABLE cell (
    question INTEGER NOT NULL, candidate TEXT NOT NULL, sample INTEGER NOT NULL, key BLOB NOT NULL,
    PRIMARY KEY (question, candidate, sample)
) WITHOUT ROWID;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL, key BLOB NOT NULL, candidate TEXT NOT NULL, sent REAL NOT NULL, seconds REAL,
    state TEXT NOT NULL, most_nanousd INTEGER NOT NULL, charged_nanousd INTEGER NOT NULL DEFAULT 0, status INTEGER, reason TEXT
);
CREATE INDEX attempt_of_key ON attempt (key);
CREATE INDEX attempt_in_flight ON attempt (id) WHERE state = 'sent';
CREATE TABLE answer (
    key BLOB PRIMARY KEY, candidate TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT, input_tokens INTEGER, output_tokens INTEGER,
    cached_tokens INTEGER, reasoning_tokens INTEGER, cost_usd REAL, price INTEGER, seconds REAL, served_model TEXT, attempt INTEGER
) WITHOUT ROWID;
CREATE TABLE chosen (
    acquisition TEXT NOT NULL, round INTEGER NOT NULL, position INTEGER NOT NULL, question INTEGER NOT NULL, candidate TEXT NOT NULL,
    PRIMARY KEY (acquisition, round, position)
) WITHOUT ROWID;
CREATE TABLE spent (candidate TEXT PRIMARY KEY, nanousd INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE grade (
    key BLOB NOT NULL, grader BLOB NOT NULL, score REAL, raw REAL, reason TEXT, PRIMARY KEY (key, grader)
) WITHOUT ROWID;
"""
"""Times are seconds since 1970. An attempt is sent, answered, failed, or lost: in flight when its process ended. `key` names a request
by its content. An answer without an attempt was read from a log, and one of attempt 0 is another ledger's, without its price there."""


class LedgerError(IprError):
    """A ledger cannot be opened, read or written."""


class Ledger:
    """A `Ledger` does pieces of work with its file, in the order they are given, each wholly or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, or make it; calls that were in flight when the last process ended count as lost.

        Raises:
            InvalidInputError: it is no ledger, of another format, or another process writes it.
        """
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        self._work: queue.SimpleQueue[tuple[Work, Future[Any]] | None] = queue.SimpleQueue()
        self._lock = _locked(self.path)
        try:
            self._connection = self._opened()
        except BaseException:
            os.close(self._lock)
            raise
        self._thread = threading.Thread(target=self._run, name="ipr-ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(self, work: Callable[[sqlite3.Connection], Result]) -> Future[Result]:
        """Queue work; its future has the result once that is on the disk."""
        future: Future[Result] = Future()
        if not self._thread.is_alive():
            raise LedgerError(f"{self.path}: is closed")
        self._work.put((work, future))
        return future

    def do(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do work now, after what waits, and return its result."""
        return self.submit(work).result()

    @contextlib.contextmanager
    def lent(self) -> Iterator[Path]:
        """Close the file so that another process may write it, and open it again afterwards.

        Raises:
            InvalidInputError: the other process writes it still.
        """
        self.close()
        try:
            yield self.path
        finally:
            self._open()

    def close(self) -> None:
        """Do what waits, and close the file."""
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
            os.close(self._lock)

    def _opened(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("BEGIN IMMEDIATE")
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO ledger VALUES (?)", (FORMAT,))
            elif "ledger" not in tables:
                raise InvalidInputError(f"{self.path}: is a database of something else; name another file")
            (found,) = connection.execute("SELECT format FROM ledger").fetchone() or (None,)
            if found != FORMAT:
                raise InvalidInputError(f"{self.path}: is a ledger of format {found}, this release knows {FORMAT}")
            _add_task(connection)
            _charge_lost(connection)
            connection.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise InvalidInputError(f"{self.path}: cannot be opened as a ledger: {error}") from None
        return connection

    def _run(self) -> None:
        """Do work until told to stop: all that waits in one commit."""
        stopping = False
        while not stopping:
            batch = [self._work.get()]
            while len(batch) < MOST_TOGETHER and not self._work.empty():
                batch.append(self._work.get())
            stopping = None in batch
            # Who has asked may have given up meanwhile; from here on they cannot.
            self._commit([item for item in batch if item is not None and item[1].set_running_or_notify_cancel()])
        self._connection.close()

    def _check_there(self) -> None:
        """Refuse to write what nobody would find again: SQLite writes on in a file that was removed."""
        try:
            there = os.path.samestat(os.stat(self.path), os.fstat(self._lock))
        except OSError:
            there = False
        if not there:
            raise LedgerError(
                f"{self.path}: was moved or removed while it was written; put it back, and give the same command"
            )

    def _commit(self, batch: list[tuple[Work, Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            self._check_there()
            self._connection.execute("BEGIN IMMEDIATE")
            for work, future in batch:
                self._connection.execute("SAVEPOINT one")
                try:
                    done.append((future, work(self._connection), None))
                except sqlite3.Error:
                    raise
                except Exception as error:
                    self._connection.execute("ROLLBACK TO one")
                    done.append((future, None, error))
                self._connection.execute("RELEASE one")
            self._connection.execute("COMMIT")
        except (sqlite3.Error, LedgerError) as error:
            with contextlib.suppress(
                sqlite3.Error
            ):  # a disk that fails may fail here too: what is not committed is undone then
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            failed = (
                error if isinstance(error, LedgerError) else LedgerError(f"{self.path}: cannot be written: {error}")
            )
            done = [(future, None, failed) for _, future in batch]
        for future, result, error_of_work in done:
            if error_of_work is None:
                future.set_result(result)
            else:
                future.set_exception(error_of_work)


def _locked(path: Path) -> int:
    """Return an open file whose lock says that this process writes the ledger; it goes with the process, however that ends."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidInputError(f"{path}: cannot be opened as a ledger: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidInputError(f"{path}: another process writes this ledger; wait for it, or end it") from None
    return handle


def _add_task(connection: sqlite3.Connection) -> None:
    """Give a ledger of an earlier release the column of tasks, which that release does not read and does not mind."""
    if "task" not in {name for _, name, *_ in connection.execute("PRAGMA table_info(question)")}:
        connection.execute("ALTER TABLE question ADD COLUMN task TEXT")


def _charge_lost(connection: sqlite3.Connection) -> None:
    """Charge calls that were in flight when a process ended: they may have been paid."""
    lost = connection.execute(
        "SELECT candidate, sum(most_nanousd) FROM attempt WHERE state = 'sent' GROUP BY candidate"
    )
    for candidate, most in lost.fetchall():
        add_spent(connection, candidate, most)
    connection.execute(
        "UPDATE attempt SET state = 'lost', charged_nanousd = most_nanousd, reason = 'process_ended' WHERE state = 'sent'"
    )


def add_spent(connection: sqlite3.Connection, candidate: str, nanousd: int) -> None:
    connection.execute(
        "INSERT INTO spent VALUES (?, ?) ON CONFLICT (candidate) DO UPDATE SET nanousd = nanousd + excluded.nanousd",
        (candidate, nanousd),
    )


def spent_so_far(connection: sqlite3.Connection) -> dict[str, int]:
    """Return candidate -> what its calls were charged, in nano-USD, by all runs of the ledger."""
    return dict(connection.execute("SELECT candidate, nanousd FROM spent").fetchall())


def grade_key(grader: bytes, reference: str | None) -> bytes:
    """Return what grades by a grader against a reference are filed under. grader: the digest of its identity."""
    return hashlib.sha256(grader + (reference or "").encode("utf-8", "surrogatepass")).digest()
