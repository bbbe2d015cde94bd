"""Routing with a record of every decision: the same answers as the engine's own, and a line each for `ipr replay`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._files import as_path
from ipr_engine._old_spellings import warn_list, warn_on_error
from ipr_engine.audit.outcome import Outcome
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record, RecordId
from ipr_engine.audit.record_fields import Resolved
from ipr_engine.bundle import Bundle
from ipr_engine.cascade import Rows
from ipr_engine.decide.contract import STATUS, DecidePlan, DecidePolicy
from ipr_engine.decision import Decision, Decisions, Row
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError, RecordError
from ipr_engine.loaded_bundle import LoadedBundle, check_on_error, check_rows
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import Options
from ipr_engine.prompts import Prompt, is_one_prompt
from ipr_engine.request.arguments import per_model
from ipr_engine.request.cached_tokens import CachedTokens, held_tokens
from ipr_engine.request.intake import check_many
from ipr_engine.request.tokens_in import TokensIn, told_tokens

if TYPE_CHECKING:
    from ipr_engine.engine import Engine

MIN_WORDS = 8  # below it figures of float32 tell the words: docs/privacy.md, tests/audit/test_privacy.py
_WORD = re.compile(r"[\u2e80-\U0003ffff]|\w+")  # a sign of a script without blanks is a word


class Recorder:
    """Routes and decides as its engine does, and writes a record of each decision; made by `Engine.recorder`.

    Safe to share between threads, and between processes that append to one file: the lines of a call are one write.
    The engine's own `route` keeps nothing and pays nothing for this; a recorded route takes some 130 us
    (benchmarks/results/swap.jsonl, 2026-11-28). What cannot be written raises RecordError,
    with the decision lost to the caller: no decision goes unrecorded. Of a two-tier bundle a record holds the figures, encoder
    and heads that decided, and no support where these were the second ones.
    """

    def __init__(
        self,
        engine: Engine,
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
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        id: RecordId = None,
        billed_tokens: int | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str | None = None,
        **terms: Any,
    ) -> Decision:
        """`Engine.route`, recorded.

        Args:
            id: what the record is called, a string or a whole number.
            on_error: of an earlier release, as is a list of prompts: `route_many` takes both.
        Raises:
            RecordError: the record could not be written.
            RowError: as `Engine.route`, once the record is written. A bad prompt has no record: nothing was decided.
        """
        if on_error is not None:
            warn_on_error("Recorder")
        elif isinstance(prompt, (list, tuple)) and not is_one_prompt(prompt):
            warn_list("Recorder")
        told = "raise" if on_error is None else on_error
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        made = self._route(prompt, policy, id, *given, told, terms)
        return cast(Decision, made)  # whatever an old spelling asks for

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        id: Sequence[RecordId] | None = None,
        billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> Decisions:
        """`Engine.route_many`, recorded; `id` is one a prompt. RowError comes once the records of all rows are written."""
        check_many(prompts)
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        made = self._route(prompts, policy, id, *given, on_error, terms)
        return cast(Decisions, made)

    def _route(
        self,
        prompts: Any,
        policy: Policy | None,
        id: Any,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
        on_error: str,
        terms: dict[str, Any],
    ) -> Row | Decisions:
        """Decide one prompt or a list of them, whatever the spelling, and write the records."""
        loaded = self._engine.loaded
        policy = loaded.settle(policy, terms)
        check_on_error(on_error)
        single = is_one_prompt(prompts)
        encoded, texts = loaded.prepare(prompts, billed_tokens, policy, on_error)
        kept = ([prompts] if single else list(prompts)) if self._keep_prompts else None
        ids = [id] if single else id
        given = (tokens_out, extra_usd, cached_tokens, tokens_in)
        decisions = self._decide(loaded, encoded, policy, *given, on_error, ids, kept, texts)
        return decisions[0] if single else decisions

    def decide(
        self,
        x: Encoded | npt.NDArray[np.float32],
        policy: Policy | None = None,
        *,
        id: RecordId | Sequence[RecordId] = None,
        billed_tokens: int | Sequence[int] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> Decisions:
        """`Engine.decide`, recorded; `id` is one a row. The prompts are not known here: none is kept, nothing escalates."""
        loaded = self._engine.loaded
        policy = loaded.settle(policy, terms)
        encoded = loaded.readable(loaded.embeddings(x, billed_tokens), policy, on_error)
        given = (tokens_out, extra_usd, cached_tokens, tokens_in)
        return self._decide(loaded, encoded, policy, *given, on_error, id, None, None)

    def _decide(
        self,
        loaded: LoadedBundle,
        encoded: Encoded,
        policy: Policy,
        tokens_out: npt.ArrayLike | None,
        extra_usd: npt.ArrayLike | None,
        cached_tokens: CachedTokens | None,
        tokens_in: TokensIn | None,
        on_error: str,
        ids: Any,
        prompts: list[Any] | None,
        texts: list[str] | None,
    ) -> Decisions:
        check_on_error(on_error)
        batch, models, bundle = len(encoded), loaded.plan.models, loaded.bundle
        names = _ids(ids, batch)
        words = encoded.billed_tokens.tolist() if texts is None else [distinct_words(text) for text in texts]
        tokens = None if tokens_out is None else per_model("tokens_out", tokens_out, batch, models)
        extra = None if extra_usd is None else per_model("extra_usd", extra_usd, batch, models)
        held = None if cached_tokens is None else held_tokens(cached_tokens, batch, bundle.names, policy.prices)
        told = None if tokens_in is None else told_tokens(tokens_in, batch, bundle.names)
        stated = np.zeros((batch, models), np.bool_) if told is None else ~np.isnan(told)
        x, second = list(encoded.x), loaded.second
        again = None if texts is None else loaded.embed_texts(texts)

        def embed(rows: Rows) -> Encoded:
            """The second encoder's, kept in place of the first's: a record holds what was decided on."""
            assert again is not None
            made = again(rows)
            for row, own in zip(rows.tolist(), made.x, strict=True):
                x[row] = own
            return made

        by_second_encoder = None if again is None else embed
        decisions = loaded.decide(encoded, policy, tokens, extra, "status", by_second_encoder, told, held)
        escalated = decisions.escalated.tolist()
        tokens_rows = None if tokens is None else np.broadcast_to(tokens, (batch, models))
        extra_rows = None if extra is None else np.broadcast_to(extra, (batch, models))
        terms = recorded_terms(policy, bundle)
        most, profiles = _most_tokens(bundle), tokenizer_keys(bundle)
        centroids = None if bundle.support is None else bundle.support.key
        bare = encoded.terms is None
        resolved = [Resolved.of(policy, by_second=by_second) for by_second in (False, True)]

        def record_of(row: int) -> Record:
            by_second = escalated[row] and second is not None
            outcome = Outcome.of(decisions, row)
            plan = second.plan if by_second and second is not None else loaded.plan
            given = bare or bool(np.isnan(encoded.terms[row, 0]))  # type: ignore[index]  # of a bare array no text was counted
            return Record(
                billed_tokens=int(encoded.billed_tokens[row]),
                truncated=bool(decisions.truncated[row]),
                tokens_out=None if tokens_rows is None else tokens_rows[row],
                extra_usd=None if extra_rows is None else extra_rows[row],
                terms=terms,
                policy=resolved[by_second],
                candidates=bundle.names,
                max_output_tokens=most,
                nonfinite=nonfinite_logits(plan, x[row], outcome.quality),
                bundle=bundle.hash,
                encoder=second.identity if by_second and second is not None else loaded.encoder_identity,
                heads=decisions[row].heads.sha256,
                prices=bundle.prices_sha256,
                isa=loaded.plan.isa,
                outcome=outcome,
                needs=None if encoded.needs is None else encoded.needs[row],
                own_tokens=None if decisions.own_tokens is None else decisions.own_tokens[row],
                cached_tokens=None if held is None else held[row].astype(np.float32),
                tokenizers=None if given else profiles,
                centroids=None if outcome.support is None else centroids,
                bill_given=given,
                tokens_in_given=tuple(np.flatnonzero(stated[row]).tolist()),
                x=x[row] if self._keep_x else None,
                brief=words[row] < self._min_words,
                id=names[row],
                prompt=None if prompts is None else prompts[row],
            )

        kept_rows = (row for row in range(batch) if row not in encoded.errors)  # nothing was decided of a bad prompt
        lines = b"".join(record_of(row).to_line(self._key) for row in kept_rows)
        if lines:
            self._write(lines)
        check_rows(decisions, on_error)
        return decisions

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


def distinct_words(text: str) -> int:
    """How many different words a text has, whatever their case."""
    return len(set(_WORD.findall(text.casefold())))


def nonfinite_logits(plan: DecidePlan, x: npt.NDArray[np.float32], quality: npt.NDArray[np.float32]) -> tuple[int, ...]:
    """Candidates, by position, whose logit on x is not finite; a quality of 0 or 1 does not tell, so the op is asked."""
    unclear = np.flatnonzero(~((quality > 0) & (quality < 1)))
    if not len(unclear):
        return ()
    nothing = np.zeros(plan.models, np.float32)
    found = []
    for m in unclear.tolist():
        alone = np.arange(plan.models) == m
        policy = DecidePolicy(
            plan,
            alpha_hi=1,
            alpha_lo=0,
            offset=0,
            worth=0,
            in_rate=nothing,
            out_rate=nothing,
            fixed_usd=nothing,
            allowed=alone,
        )
        made = plan.run(x[None], policy, 0, tokens_out=nothing)
        if STATUS[made.status_at(0)] == "nonfinite_quality":
            found.append(m)
    return tuple(found)


def recorded_terms(policy: Policy, bundle: Bundle) -> Options:
    """The policy's terms, with the figures that it weighed: the engine's may be others by the time of a replay."""
    if policy.weighing is None:
        return policy.options
    return {**policy.options, "performance": policy.weighing.by_name(bundle.names)}


def tokenizer_keys(bundle: Bundle) -> tuple[str | None, ...] | None:
    """Which profile counts each candidate's own tokens; None where no candidate names one."""
    named = tuple(None if c.tokenizer is None else c.tokenizer.key for c in bundle.candidates)
    return named if any(named) else None


def _most_tokens(bundle: Bundle) -> tuple[int | None, ...] | None:
    stated = tuple(candidate.max_output_tokens for candidate in bundle.candidates)
    return stated if any(most is not None for most in stated) else None


def _ids(ids: Any, batch: int) -> Sequence[RecordId]:
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
    """A file that lines are appended to, each call's in one write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = Lock()
        try:
            self._file: int | None = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            state = os.fstat(self._file)
            cut = stat.S_ISREG(state.st_mode) and state.st_size and os.pread(self._file, 1, state.st_size - 1) != b"\n"
        except OSError as error:
            raise RecordError(f"to: cannot append to {path}: {error.strerror}") from error
        if cut:  # a writer died in the middle of a line: it stays one damaged line, not two
            self.write(b"\n")

    def write(self, lines: bytes) -> None:
        with self._writing:
            if self._file is None:
                raise RecordError(f"to: {self._path} is closed; make a new recorder")
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
