"""What happens to a prompt before the queue: checked, answered at once where that can be, else made a request."""

from __future__ import annotations

from typing import Any, NoReturn

from ipr_engine._C import clock_ns
from ipr_engine._validate import number
from ipr_engine.decision import Decision, FailedRow, Row
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError, NotServingError
from ipr_engine.loaded_bundle import LoadedBundle, check_on_error
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import Prompt, parse_request
from ipr_engine.request.arguments import whole_counts
from ipr_engine.request.intake import check_readable
from ipr_engine.request.tokens_in import told_tokens
from ipr_engine.serving.cache import DecisionCache
from ipr_engine.serving.counters import CounterBoard
from ipr_engine.serving.fallback import Fallback
from ipr_engine.serving.forward import raised
from ipr_engine.serving.limits import Limits
from ipr_engine.serving.request import Request
from ipr_engine.serving.request_overrides import RequestOverrides

MOST_US = 1e12  # of a budget: eleven days


class Admission:
    """The caller's side, in the caller's thread. `begin` is the whole path of the static tier, hence straight-line code.

    Attributes:
        serving: whether prompts are taken.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        board: CounterBoard,
        cache: DecisionCache | None,
        fallback: Fallback | None,
    ) -> None:
        self.serving = False
        self._engine = engine
        self._inline_chars = limits.inline_chars
        self._board = board
        self._cache = cache
        self._fallback = fallback

    def begin(
        self,
        prompt: Prompt,
        policy: Policy | None,
        budget_us: float | None,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
        on_error: str,
        terms: dict[str, Any],
    ) -> Row | Request:
        """The decision, where it can be made here and now, or a request to be queued.

        Raises:
            InvalidInputError, RowError, NotServingError: as `BatchingEngine.route`.
        """
        begun = clock_ns()
        if not self.serving:
            self._refuse()
        loaded = self._engine.loaded
        try:
            if budget_us is not None:
                _check_budget(budget_us)
            if on_error != "raise":
                check_on_error(on_error)
            settled = loaded.resolve(policy, terms)
            if (
                loaded.routes_text
                and type(prompt) is str
                and len(prompt) <= self._inline_chars
                and self._cache is None
                and billed_tokens is None
                and tokens_out is None
                and extra_usd is None
                and cached_tokens is None
                and tokens_in is None
            ):
                result, billed, truncated, support, own = loaded.router.route_one(prompt, settled.compiled)
                if not settled.escalate_below or not loaded.escalates(result, settled):
                    kind = Decision if result.all_ok else FailedRow
                    decision: Row = kind(result, 0, settled, loaded.bundle, billed, truncated, support)
                    if own is not None:
                        decision._own = own
                    self._board.decided(decision)
                    self._board.inline.since(begun)
                    return decision if result.all_ok and on_error == "raise" else _checked(decision, on_error)
            given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
            return self._begin(loaded, prompt, settled, budget_us, *given, on_error, begun)
        except InvalidInputError:
            self._board.event("invalid")
            raise

    def _begin(
        self,
        loaded: LoadedBundle,
        prompt: Prompt,
        policy: Policy,
        budget_us: float | None,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
        on_error: str,
        begun: int,
    ) -> Row | Request:
        text = parse_request(prompt)
        short = len(text.encoded) + sum(map(len, text.billed_only)) <= self._inline_chars
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        plain = all(one is None for one in given) and not text.uncountable
        key = None
        if self._cache is not None and plain and short:
            key = self._cache.key(text, policy)
            found = self._cache.get(key, loaded.hash)
            if found is not None:
                self._board.decided(found)
                self._board.cached.since(begun)
                return found
        if loaded.routes_text and short:
            encoded, _ = loaded.prepare(text, billed_tokens, policy)
            told = None if tokens_in is None else told_tokens(tokens_in, 1, loaded.bundle.names)
            decision = loaded.decide(encoded, policy, tokens_out, extra_usd, "status", None, told, cached_tokens)[0]
            if not loaded.escalates(decision._result, policy):  # else the second encoder is asked, by the worker
                self._board.decided(decision)
                self._board.inline.since(begun)
                if key is not None and self._cache is not None and decision.status == "ok":
                    self._cache.put(key, decision)
                return _checked(decision, on_error)
        check_readable(text, "prompt", billed_tokens, loaded.bundle, policy)
        if billed_tokens is not None:
            billed_tokens = int(whole_counts(billed_tokens, 1).item())
        own = RequestOverrides.of(loaded.bundle.names, policy.prices, *given[1:])
        prepared = None
        if budget_us is not None and self._fallback is not None:
            prepared = self._fallback.prepare(text, billed_tokens, own, policy, loaded)
        return Request(
            text,
            policy,
            begun_ns=begun,
            budget_us=budget_us,
            billed_tokens=billed_tokens,
            own=own,
            on_error=on_error,
            key=key,
            fallback=prepared,
        )

    def _refuse(self) -> NoReturn:
        self._board.event("not_serving")
        raise NotServingError("not started, or closed: enter it (`with ... as serving`), or call start() first")


def _checked(decision: Row, on_error: str) -> Row:
    result = raised(decision, on_error)
    if isinstance(result, Exception):
        raise result
    return result


def _check_budget(budget_us: float) -> None:
    if not 0.0 < number("budget_us", budget_us) <= MOST_US:
        raise InvalidInputError(
            f"budget_us: expected microseconds above 0, got {budget_us!r}; leave it out for no limit"
        )
