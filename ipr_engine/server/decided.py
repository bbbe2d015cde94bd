"""An `AskedRequest` is one request as a server decides it; a `Decided` is the answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from ipr_engine.audit.exploration import Exploration
from ipr_engine.decision.decision import Decision
from ipr_engine.request.controls import Controls
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import Tenant

EXPLORED = "explored"
"""The cause of a candidate that chance drew in place of the policy's choice."""


class AskedRequest(NamedTuple):
    """An `AskedRequest` is one request as it is decided.

    Attributes:
        prompt: the body, or whatever `parse_request` takes. controls: what the request asks for.
        tenant: who asks. model: the name that was asked for. form: the format that who answers must speak; None: nobody is asked.
        among: the candidates that it may be; none of them: all.
        within: the field of the request that is the prompt, for errors; "" where the whole body is.
        long: whether the prompt is taken apart beside the event loop.
    """

    prompt: Any
    controls: Controls
    tenant: Tenant
    model: str
    form: RequestFormat | None = None
    among: tuple[str, ...] = ()
    within: str = ""
    long: bool = False


class Decided(NamedTuple):
    """A `Decided` is the answer to a question.

    Attributes:
        id: of the decision, in replies, records and logs.
        decision: the policy's. exploration: who is asked where chance may choose another; None where it may not.
        saved: what the candidate that is asked saves: `saved_usd` of it.
        assumed: tokens billed by assumption, of parts that cannot be counted.
        position, model: of the candidate that is asked. cause: why that one. ranked: it, and who is asked after it.
    """

    id: str
    question: AskedRequest
    asked: AskedPolicy
    decision: Decision
    saved: float | None
    assumed: int = 0
    exploration: Exploration | None = None

    @classmethod
    def of(
        cls,
        id: str,
        question: AskedRequest,
        asked: AskedPolicy,
        decision: Decision,
        assumed: int,
        exploration: Exploration | None = None,
    ) -> Decided:
        """Make the answer to a question."""
        index = decision.index if exploration is None else exploration.index
        return cls(id, question, asked, decision, decision.saved_usd(asked.best, index), assumed, exploration)

    @property
    def position(self) -> int:
        return self.decision.index if self.exploration is None else self.exploration.index

    @property
    def model(self) -> str:
        return self.decision.model if self.exploration is None else self.exploration.model

    @property
    def explored(self) -> bool:
        """Return whether chance drew another candidate than the policy's choice."""
        return self.exploration is not None and self.exploration.index != self.decision.index

    @property
    def cause(self) -> str:
        return EXPLORED if self.explored else self.decision.cause

    @property
    def ranked(self) -> tuple[str, ...]:
        ranked = self.decision.ranked
        return (self.model, *(name for name in ranked if name != self.model)) if self.explored else ranked

    def saved_usd(self, index: int) -> float | None:
        """Return what a candidate saves on this request; None where that is not known."""
        return self.decision.saved_usd(self.asked.best, index)
