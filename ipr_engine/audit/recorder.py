"""A `Recorder` routes and records every decision: its answers are the engine's own, with a line each for `ipr replay`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._files import as_path
from ipr_engine._old_spellings import on_error_of_route
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import RecordId
from ipr_engine.audit.row_record import row_records
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions, MadeOn
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError, RecordError
from ipr_engine.loaded.kept_embeddings import as_encoded
from ipr_engine.loaded.loaded_bundle import LoadedBundle, checked_rows
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt, is_one_prompt
from ipr_engine.request.intake import check_many
from ipr_engine.request.overrides import RequestOverrides
from ipr_engine.request.route_request import RouteOptions, RouteRequest, check_on_error, policy_options

MIN_WORDS = 8  # below it figures of float32 tell the words: docs/privacy.md, tests/audit/test_privacy.py
Made = TypeVar("Made")


class RecordedEngine(Protocol):
    """A `RecordedEngine` is an engine that a recorder may use.

    It gives the bundle that serves now, and runs a call on it, on the CPU where a device is lost.
    """

    @property
    def loaded(self) -> LoadedBundle: ...

    def run(self, call: Callable[[LoadedBundle], Made]) -> Made: ...


class Recorder:
    """A `Recorder` routes and decides as its engine does, and writes a record of each decision; made by `Engine.recorder`.

    Safe to share between threads, and between processes that append to one file: the lines of a call are one write.
    The engine's own `route` keeps nothing and pays nothing for this; a recorded route takes some 130 us
    (benchmarks/results/swap.jsonl, 2026-11-28). What cannot be written raises RecordError,
    with the decision lost to the caller: no decision goes unrecorded. Of a two-tier bundle a record holds the figures, encoder
    and heads that decided, and no support where these were the second ones.
    """

    def __init__(
        self,
        engine: RecordedEngine,
        to: str | os.PathLike[str] | Callable[[bytes], object],
        *,
        keep_prompts: bool = False,
        keep_x: bool = False,
        key: OwnerKey | str | os.PathLike[str] | bytes | None = None,
        min_words: int = MIN_WORDS,
    ) -> None:
        for name, asked in (("keep_prompts", keep_prompts), ("keep_x", keep_x)):
            if not isinstance(asked, bool):
                raise InvalidInputError(f"{name}: expected True or False, got {asked!r}")
        if type(min_words) is not int or min_words < 0:
            raise InvalidInputError(f"min_words: expected a whole number >= 0, got {min_words!r}")
        if keep_x and key is None:
            raise InvalidInputError(
                "keep_x: an embedding tells the words of its prompt, and is kept under an owner's key alone; pass key=..., or make "
                "one with `ipr key FILE`"
            )
        self._key = None if key is None else OwnerKey.load(key)
        if self._key is not None:
            self._key.require_cipher()
        self._keep_x = keep_x
        self._min_words = min_words
        self._engine = engine
        self._keep_prompts = keep_prompts
        self._log = None if callable(to) else _Log(as_path(to, "to"))
        self._write: Callable[[bytes], object] = to if callable(to) else self._log.write  # type: ignore[union-attr]

    def route(
        self, prompt: Prompt, policy: Policy | None = None, *, id: RecordId = None, **options: Unpack[RouteOptions]
    ) -> Decision:
        """Decide one prompt as `Engine.route` does, and record it.

        Args:
            id: what the record is called, a string or a whole number.
            options: as of `Engine.route`; on_error is of an earlier release, as is a list of prompts: `route_many` takes both.
        Raises:
            RecordError: the record could not be written.
            RowError: as `Engine.route`, once the record is written. A bad prompt has no record: nothing was decided.
        """
        on_error = on_error_of_route("Recorder", prompt, options)
        single = is_one_prompt(prompt)
        made = self.route_rows(prompt, policy, options, on_error, ids=[id] if single else id)
        return made[0] if single else cast(Decision, made)  # an old spelling of route_many

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        id: Sequence[RecordId] | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decisions:
        """Decide several prompts as `Engine.route_many` does, and record each; `id` is one a prompt.

        RowError comes once the records of all rows are written.
        """
        check_many(prompts)
        return self.route_rows(prompts, policy, options, options.get("on_error", "raise"), ids=id)

    def route_rows(
        self, prompts: Any, policy: Policy | None, options: Mapping[str, object], on_error: object, *, ids: Any = None
    ) -> Decisions:
        """Decide and record one prompt or a list of them; the options are those of `route_many`, but for on_error.

        ids: one a prompt; None for none.
        """
        of_policy = policy_options(options)
        many = isinstance(prompts, (list, tuple)) and not is_one_prompt(prompts)
        readable = many or is_one_prompt(prompts)  # what is no prompt at all is refused by the walk
        names = _ids(ids, len(prompts) if many else 1) if readable else ()

        def route(loaded: LoadedBundle) -> tuple[LoadedBundle, Decisions]:
            # Embeddings are kept for the record even where it holds none: `row_records` asks the op which logits are not finite.
            request = RouteRequest(prompts, loaded.resolve(policy, of_policy), options, on_error)
            return loaded, loaded.walk(request, keep_x=True)

        # The bundle comes back with the decisions: the engine may have swapped to another since.
        loaded, decisions = self._engine.run(route)
        kept = None
        if self._keep_prompts:
            kept = [prompts] if is_one_prompt(prompts) else list(prompts)
        self._record(loaded, decisions, names, kept)
        return checked_rows(decisions, on_error)

    def decide(
        self,
        x: Encoded | npt.NDArray[np.float32],
        policy: Policy | None = None,
        *,
        id: RecordId | Sequence[RecordId] = None,
        **options: Unpack[RouteOptions],
    ) -> Decisions:
        """Decide embeddings as `Engine.decide` does, and record each; `id` is one a row.

        The prompts are not known here: none is kept, nothing escalates.
        """
        # Read once: the whole call is of this bundle.
        loaded = self._engine.loaded
        policy = loaded.resolve(policy, policy_options(options))
        on_error = options.get("on_error", "raise")
        check_on_error(on_error)
        encoded = as_encoded(loaded, x, policy, billed_tokens=options.get("billed_tokens"), on_error=on_error)
        names = _ids(id, len(encoded))
        overrides = RequestOverrides.of(options, len(encoded), loaded.bundle.names, policy.prices)
        decisions = loaded.decide(encoded, policy, overrides)
        decisions.made_on = MadeOn(encoded, overrides, None, list(encoded.x))
        self._record(loaded, decisions, names, None)
        return checked_rows(decisions, on_error)

    def _record(
        self, loaded: LoadedBundle, decisions: Decisions, names: Sequence[RecordId], prompts: list[Any] | None
    ) -> None:
        """Write the record of every row that was decided, in one write."""
        made_on = decisions.made_on
        assert made_on is not None
        rows = [
            row for row in range(len(decisions)) if row not in decisions.errors
        ]  # nothing was decided of a bad prompt
        if not rows:
            return
        record_of = row_records(loaded, decisions, made_on, self._min_words)
        lines = []
        for row in rows:
            x, prompt = made_on.x[row] if self._keep_x else None, None if prompts is None else prompts[row]
            # What is not asked for never gets into the record.
            lines.append(record_of(row, id=names[row], x=x, prompt=prompt).to_line(self._key))
        self._write(b"".join(lines))

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _ids(ids: Any, batch: int) -> Sequence[RecordId]:
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


class _Log:
    """A `_Log` is a file that lines are appended to, each call's in one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = Lock()
        try:
            # O_APPEND: the system puts each write at the end, so that lines of several processes do not mix.
            self._file: int | None = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            state = os.fstat(self._file)
            cut = stat.S_ISREG(state.st_mode) and state.st_size and os.pread(self._file, 1, state.st_size - 1) != b"\n"
        except OSError as error:
            raise RecordError(f"to: cannot append to {path}: {error.strerror}") from error
        if cut:  # a writer died in the middle of a line: it stays one damaged line, not two
            self.write(b"\n")

    def write(self, lines: bytes) -> None:
        """Write whole lines; RecordError where the file is closed or the system refuses."""
        with self._writing:
            if self._file is None:
                raise RecordError(f"to: {self._path} is closed; make a new recorder")
            # The system may write less than it is given: the rest follows under the same lock.
            left = memoryview(lines)
            try:
                while left:
                    left = left[os.write(self._file, left) :]
            except OSError as error:
                raise RecordError(f"to: cannot write to {self._path}: {error.strerror}") from error

    def close(self) -> None:
        with self._writing:
            file, self._file = self._file, None
            if file is not None:
                os.close(file)
