"""A `Recorder` routes and records every decision: its answers are the engine's own, with a line each for `ipr replay`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar, Unpack, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._old_spellings import on_error_of_route
from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import RecordId
from ipr_engine.audit.record_writer import RecordWriter, record_ids
from ipr_engine.audit.row_record import row_records
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions, checked_rows
from ipr_engine.encoders.base import Encoded
from ipr_engine.loaded.kept_embeddings import as_encoded
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt, is_one_prompt
from ipr_engine.request.intake import check_many
from ipr_engine.request.overrides import RequestOverrides
from ipr_engine.request.route_request import RouteOptions, RouteRequest, check_on_error, policy_options

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
        min_words: int | None = None,
    ) -> None:
        self._writer = RecordWriter(to, keep_prompts=keep_prompts, keep_x=keep_x, key=key, min_words=min_words)
        self._engine = engine

    def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        id: RecordId = None,
        draw: ExplorationDraw | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decision:
        """Decide one prompt as `Engine.route` does, and record it.

        Args:
            id: what the record is called, a string or a whole number.
            draw: of an `Explorer`, whose `of(decision)` says who is to be asked; the record says so too.
            options: as of `Engine.route`; on_error is of an earlier release, as is a list of prompts: `route_many` takes both.
        Raises:
            RecordError: the record could not be written.
            RowError: as `Engine.route`, once the record is written. A bad prompt has no record: nothing was decided.
        """
        on_error = on_error_of_route("Recorder", prompt, options)
        single = is_one_prompt(prompt)
        made = self.route_rows(prompt, policy, options, on_error, ids=[id] if single else id, draw=draw)
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
        self,
        prompts: Any,
        policy: Policy | None,
        options: Mapping[str, object],
        on_error: object,
        *,
        ids: Any = None,
        draw: ExplorationDraw | None = None,
    ) -> Decisions:
        """Decide and record one prompt or a list of them; the options are those of `route_many`, but for on_error.

        ids: one a prompt; None for none. draw: of all of them; None where nobody explores.
        """
        of_policy = policy_options(options)
        many = isinstance(prompts, (list, tuple)) and not is_one_prompt(prompts)
        readable = many or is_one_prompt(prompts)  # what is no prompt at all is refused by the walk
        names = record_ids(ids, len(prompts) if many else 1) if readable else ()

        def route(loaded: LoadedBundle) -> tuple[LoadedBundle, Decisions]:
            # Embeddings are kept for the record even where it holds none: `row_records` asks the op which logits are not finite.
            request = RouteRequest(prompts, loaded.resolve(policy, of_policy), options, on_error)
            return loaded, loaded.walk(request, keep_x=True)

        # The bundle comes back with the decisions: the engine may have swapped to another since.
        loaded, decisions = self._engine.run(route)
        kept = None
        if self._writer.keep_prompts:
            kept = [prompts] if is_one_prompt(prompts) else list(prompts)
        self._record(loaded, decisions, names, kept, draw)
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
        encoded = as_encoded(loaded, x, policy, given=options, on_error=on_error)
        names = record_ids(id, len(encoded))
        overrides = RequestOverrides.of(options, len(encoded), loaded.bundle.names, policy.prices)
        decisions = loaded.decide_keeping(encoded, policy, overrides)
        self._record(loaded, decisions, names, None)
        return checked_rows(decisions, on_error)

    def _record(
        self,
        loaded: LoadedBundle,
        decisions: Decisions,
        names: Sequence[RecordId],
        prompts: list[Any] | None,
        draw: ExplorationDraw | None = None,
    ) -> None:
        """Write the record of every row that was decided, in one write."""
        rows = [
            row for row in range(len(decisions)) if row not in decisions.errors
        ]  # nothing was decided of a bad prompt
        if not rows:
            return
        made_on, writer = decisions.made_on, self._writer
        assert made_on is not None
        record_of, lines = row_records(loaded, decisions, made_on, writer.min_words), []
        for row in rows:
            # What is not asked for never gets into the record.
            x, prompt = made_on.x[row] if writer.keep_x else None, None if prompts is None else prompts[row]
            asked = None if draw is None else draw.of(decisions[row])
            lines.append(writer.line(record_of(row, id=names[row], x=x, prompt=prompt, exploration=asked)))
        writer.write(b"".join(lines))

    def close(self) -> None:
        """Close the file. May be called again."""
        self._writer.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
