"""A `DecisionWriter` decides requests of text alone for a service, and writes their decisions in the same C++ call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ipr_engine._C import PlainPolicy
from ipr_engine.decide.contract import OneRow
from ipr_engine.decision.decision import Decision
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts.parsed import Needs
from ipr_engine.request.row_inputs import RowInputs
from ipr_engine.serving.counter_board import CounterBoard
from ipr_engine.serving.forward import ServedEngine
from ipr_engine.serving.queueing import Limits


class Written(NamedTuple):
    """A `Written` is a decision of which the JSON was made first: whoever waits for it need not wait for the rest.

    Attributes:
        json: what is told of it. loaded, policy: what decided.
        figures: of its row. stated: the output tokens that the request states; None where it states none.
    """

    json: bytes
    loaded: LoadedBundle
    policy: Policy
    figures: OneRow
    stated: int | None

    def decision(self) -> Decision:
        result, billed, truncated, support, own = self.figures
        made = Decision(result, 0, self.policy, self.loaded.bundle, billed, truncated, support, own)
        if self.stated is not None:
            made.inputs = RowInputs(self.loaded.limits.of(Needs(max_output_tokens=self.stated))[0])
        return made


def written(
    loaded: LoadedBundle, request: object, policy: Policy, plain: PlainPolicy, prefix: str, number: int
) -> Written | None:
    """Decide a whole request, and write its decision; None where more is asked than its policy and its texts tell.

    Args:
        plain: of the policy, of the bundle that it was compiled for.
        prefix, number: of the decision's id: letters and digits, and at least 8 hexadecimal digits.
    Raises:
        InvalidInputError: no token of the prompt is known.
    """
    if not loaded.routes_text or policy.drift.evidence is not None or loaded.resolve(policy) is not policy:
        return None
    made = plain.route(loaded.router, request, prefix, number)
    return None if made is None else Written(made[0], loaded, policy, made[1], made[2])


class ServingService(Protocol):
    """A `ServingService` is what a writer needs of a `Service`."""

    engine: ServedEngine
    limits: Limits
    board: CounterBoard

    @property
    def serving(self) -> bool: ...

    @property
    def cache(self) -> object: ...


class DecisionWriter:
    """A `DecisionWriter` writes for one service.

    Attributes:
        inline_chars: up to how many characters a prompt is decided where it is asked.
    """

    def __init__(self, service: ServingService) -> None:
        self._service = service
        self.inline_chars = service.limits.inline_chars

    def write(self, request: object, policy: Policy, plain: PlainPolicy, prefix: str, number: int) -> Written | None:
        """Do as `written` does, on the bundle that serves; None, too, where the service does not serve, or keeps decisions.

        It does not count: give what it returns to `count`.
        """
        service = self._service
        if not service.serving or service.cache is not None:
            return None
        return written(service.engine.loaded, request, policy, plain, prefix, number)

    def count(self, made: Written, took_ns: int) -> Decision:
        """Count what `write` made as a decision that was made at once, and return it."""
        decision = made.decision()
        board = self._service.board
        board.decided(decision)
        board.inline.add(took_ns)
        return decision
