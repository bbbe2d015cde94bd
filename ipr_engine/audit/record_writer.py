"""A `RecordWriter` turns decisions into lines, as its owner asks for them, and appends these to a file or hands them on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias, TypedDict

from ipr_engine._files import as_path
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record, RecordId
from ipr_engine.audit.record_fields import UNPREDICTED
from ipr_engine.errors import InvalidInputError, RecordError
from ipr_engine.prompts import as_json

RecordSink: TypeAlias = str | os.PathLike[str] | Callable[[bytes], object]
MIN_WORDS = 8  # below it figures of float32 tell the words: docs/privacy.md, tests/audit/test_privacy.py


class RecordKeywords(TypedDict, total=False):
    """`RecordKeywords` are what is asked of records: the keyword arguments of `Engine.recorder`."""

    keep_prompts: bool
    keep_x: bool
    key: OwnerKey | str | os.PathLike[str] | bytes | None
    min_words: int | None


class RecordWriter:
    """A `RecordWriter` says what a record holds, and writes it. Safe to share between threads.

    Several processes may append to one file: what one call writes is one write. A file that is renamed or removed is written on in a
    new one at its path, from the next call on.

    Attributes:
        keep_prompts, keep_x: whether the prompt and its embedding are part of a record. min_words: fewer make a prompt brief.
        write: appends whole lines, or hands them on; raises what the system or the sink raises, as a RecordError where it is a file.
    """

    def __init__(
        self,
        to: RecordSink,
        *,
        keep_prompts: bool = False,
        keep_x: bool = False,
        key: OwnerKey | str | os.PathLike[str] | bytes | None = None,
        min_words: int | None = None,
    ) -> None:
        """Open the file; the arguments are those of `Engine.recorder`."""
        for name, asked in (("keep_prompts", keep_prompts), ("keep_x", keep_x)):
            if not isinstance(asked, bool):
                raise InvalidInputError(f"{name}: expected True or False, got {asked!r}")
        least = MIN_WORDS if min_words is None else min_words
        if type(least) is not int or least < 0:
            raise InvalidInputError(f"min_words: expected a whole number >= 0, got {min_words!r}")
        if keep_x and key is None:
            raise InvalidInputError(
                "keep_x: an embedding tells the words of its prompt, and is kept under an owner's key alone; give one as key "
                "(`ipr key FILE` makes it)"
            )
        self._key = None if key is None else OwnerKey.load(key)
        if self._key is not None:
            self._key.require_cipher()
        self.keep_prompts = keep_prompts
        self.keep_x = keep_x
        self.min_words = least
        self._log = None if callable(to) else _Log(as_path(to, "to"))
        self.write: Callable[[bytes], object] = to if callable(to) else self._log.write  # type: ignore[union-attr]

    def line(self, record: Record) -> bytes:
        """Return the line that is written of a record."""
        return record.to_line(self._key)

    def write_each(self, lines: Sequence[bytes]) -> list[Exception | None]:
        """Write lines of several callers, to a file in one write; return what kept each from being written, None where nothing did."""
        if self._log is not None:
            return self._log.write_each(lines)
        problems: list[Exception | None] = []
        for line in lines:
            try:
                self.write(line)
                problems.append(None)
            except BaseException as error:  # of a sink of anyone's making; its text may hold the line
                failed = RecordError(f"to: the record could not be written: {type(error).__name__}")
                failed.__cause__ = error
                problems.append(error if isinstance(error, RecordError) else failed)
        return problems

    def can_be_replayed(self, record: Record) -> bool:
        """Return whether `replay` can decide a record again: it has the figures, in clear or under the key."""
        return record.degraded != UNPREDICTED and (self._key is not None or not record.brief)

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._log is not None:
            self._log.close()

    def after_fork(self) -> None:
        """Begin anew in a forked child, where a thread that was writing did not come along."""
        if self._log is not None:
            self._log.after_fork()


def record_ids(ids: Any, batch: int) -> Sequence[RecordId]:
    """Return one id a row; InvalidInputError where they are others."""
    if ids is None:
        return [None] * batch
    if not isinstance(ids, (list, tuple)) or len(ids) != batch:
        got = f"{len(ids)} of them" if isinstance(ids, (list, tuple)) else repr(ids)
        raise InvalidInputError(f"id: expected one a row, {batch} in all, got {got}")
    for one in ids:
        if one is not None and type(one) not in (str, int):
            raise InvalidInputError(f"id: expected a string or a whole number, got {type(one).__name__} {one!r}")
    return ids


def prompt_copy(prompt: Any) -> Any:
    """Return a prompt as a record holds it, which its caller cannot change any more; InvalidInputError where JSON cannot hold it."""
    if type(prompt) is str:
        return prompt
    try:
        return json.loads(json.dumps(prompt, default=as_json))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"prompt: expected what JSON can hold, to keep it in a record ({error})") from None


class _Log:
    """A `_Log` is a file that lines are appended to, each call's in one write.

    Before each write it looks whether its path still names its file: once that was renamed or removed, it goes on in a new one there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = os.path.abspath(path)  # the working directory may change, and the path names the same file still
        self._writing = Lock()
        self._file, self._known, self._cut = self._opened()  # _cut: it ends within a line
        self._closed = False

    def _opened(self) -> tuple[int, tuple[int, int], bool]:
        """Return the file that the path names, which is made where none is; what tells it from others; whether it ends in a line."""
        try:
            # O_APPEND: the system puts each write at the end, so that lines of several processes do not mix.
            file = os.open(self._place, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RecordError(f"to: cannot append to {self._path}: {error.strerror}") from error
        try:
            state = os.fstat(file)
            # A writer may have died in the middle of a line: it stays one damaged line, not two.
            cut = stat.S_ISREG(state.st_mode) and state.st_size and os.pread(file, 1, state.st_size - 1) != b"\n"
        except OSError as error:
            os.close(file)
            raise RecordError(f"to: cannot append to {self._path}: {error.strerror}") from error
        return file, (state.st_dev, state.st_ino), bool(cut)

    def _follow(self) -> None:
        """Open anew what the path names, where that is another file by now, or none; RecordError where it cannot be opened."""
        try:
            found = os.stat(self._place)
        except OSError:  # opening tells what it is, or mends it
            pass
        else:
            if (found.st_dev, found.st_ino) == self._known:
                return
        file, self._known, self._cut = self._opened()
        self._file, before = file, self._file
        os.close(before)

    def write(self, lines: bytes) -> None:
        """Write whole lines; RecordError where the file is closed or the system refuses."""
        [problem] = self.write_each([lines])
        if problem is not None:
            raise problem

    def write_each(self, lines: Sequence[bytes]) -> list[Exception | None]:
        """Write lines in one write; return a RecordError for each that is not written whole, None for the others."""
        with self._writing:
            if self._closed:
                return [RecordError(f"to: {self._path} is closed; make a new recorder") for _ in lines]
            try:
                self._follow()
            except RecordError as error:
                return [_again(error) for _ in lines]  # one each: they are raised in several threads
            data = b"".join([b"\n" if self._cut else b"", *lines])
            # The system may write less than it is given: the rest follows under the same lock.
            left = memoryview(data)
            try:
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError as error:
                self._cut = self._cut or len(left) < len(data)
                return self._unwritten(lines, len(left), error)
            self._cut = False
            return [None] * len(lines)

    def _unwritten(self, lines: Sequence[bytes], left: int, error: OSError) -> list[Exception | None]:
        """Return an error for each of the lines that the last `left` bytes belong to."""
        problems: list[Exception | None] = []
        for line in reversed(lines):
            problem = RecordError(f"to: cannot write to {self._path}: {error.strerror}") if left > 0 else None
            if problem is not None:
                problem.__cause__ = error
            problems.append(problem)
            left -= len(line)
        return problems[::-1]

    def close(self) -> None:
        with self._writing:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def after_fork(self) -> None:
        self._writing = Lock()


def _again(error: RecordError) -> RecordError:
    made = RecordError(str(error))
    made.__cause__ = error.__cause__
    return made
