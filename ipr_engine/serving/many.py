"""Several prompts asked of a serving engine in one call: every one is a request of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipr_engine.decision import OK, Row
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError, RowError
from ipr_engine.failed_rows import invalid_row
from ipr_engine.loaded_bundle import check_on_error
from ipr_engine.policy.policy import Policy
from ipr_engine.request.arguments import per_model
from ipr_engine.request.by_candidate import one_a_row
from ipr_engine.request.cached_tokens import held_tokens
from ipr_engine.request.intake import check_many, given_bills
from ipr_engine.request.tokens_in import told_tokens
from ipr_engine.serving.admission import Admission
from ipr_engine.serving.request import Request


class Asked:
    """The prompts of one `route_many`, with what belongs to each of them."""

    def __init__(
        self,
        engine: Engine,
        prompts: Any,
        policy: Policy,
        bills: list[int | None],
        tokens: Any,
        extra: Any,
        cached: Sequence[Any],
        told: Sequence[Any],
        on_error: str,
    ) -> None:
        self._engine = engine
        self._prompts = prompts
        self._policy = policy
        self._bills = bills
        self._tokens = tokens
        self._extra = extra
        self._cached = cached
        self._told = told
        self._on_error = on_error

    @classmethod
    def of(
        cls,
        engine: Engine,
        prompts: Any,
        policy: Policy | None,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
        on_error: str,
        terms: dict[str, Any],
    ) -> Asked:
        """Check the arguments of all prompts; each prompt is checked as its turn comes.

        Raises:
            InvalidInputError: an argument is not as `Engine.route_many` has it.
        """
        check_many(prompts)
        check_on_error(on_error)
        loaded, batch = engine.loaded, len(prompts)
        names, settled = loaded.bundle.names, loaded.resolve(policy, terms)
        models = len(names)
        held = None if cached_tokens is None else held_tokens(cached_tokens, batch, names, settled.prices)
        told = None if tokens_in is None else told_tokens(tokens_in, batch, names)
        return cls(
            engine,
            prompts,
            settled,
            given_bills(billed_tokens, batch),
            None if tokens_out is None else per_model("tokens_out", tokens_out, batch, models),
            None if extra_usd is None else per_model("extra_usd", extra_usd, batch, models),
            [None] * batch if held is None else one_a_row(cached_tokens, held),
            [None] * batch if told is None else one_a_row(tokens_in, told),
            on_error,
        )

    def __len__(self) -> int:
        return len(self._prompts)

    def begin(self, admission: Admission, row: int, budget_us: float | None) -> Row | Request:
        """What `Admission.begin` gives of this prompt; a failed row where it is bad and rows are told by status.

        Raises:
            InvalidInputError: the prompt is bad, its row named.
        """
        given = (self._tokens, self._extra)
        tokens, extra = (None if one is None else one if one.ndim == 1 else one[row] for one in given)
        own = (self._bills[row], tokens, extra, self._cached[row], self._told[row])
        try:
            return admission.begin(self._prompts[row], self._policy, budget_us, *own, "status", {})
        except InvalidInputError as error:
            return self.bad(row, error)

    def bad(self, row: int, error: InvalidInputError) -> Row:
        """The failed row of a bad prompt; the error, its row named, where rows are not told by status or it is no prompt's."""
        told = str(error)
        name = next((name for name in ("prompts[0]", "prompt") if told.startswith(f"{name}:")), None)
        if name is None:
            raise error
        told = f"prompts[{row}]{told.removeprefix(name)}"
        if self._on_error == "raise":
            raise InvalidInputError(told) from None
        loaded = self._engine.loaded
        return invalid_row(loaded.resolve(self._policy, {}), loaded.bundle, told)

    def checked(self, rows: list[Row]) -> list[Row]:
        """The rows; RowError for the failed ones unless they are told by status."""
        failed = [at for at, row in enumerate(rows) if row.degraded is None and row._result.status_at(row._row) != OK]
        if failed and self._on_error == "raise":
            raise RowError(failed, [rows[at].status for at in failed])
        return rows
