"""An `AskedRequest` is one request as a server decides it; a `Decided` is the answer."""

from __future__ import annotations

from typing import Any, NamedTuple

from ipr_engine.decision.decision import Decision
from ipr_engine.request.controls import Controls
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import Tenant


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
        saved: what the chosen candidate saves: `saved_usd` of it.
        assumed: tokens billed by assumption, of parts that cannot be counted.
    """

    id: str
    question: AskedRequest
    asked: AskedPolicy
    decision: Decision
    saved: float | None
    assumed: int = 0

    @classmethod
    def of(cls, id: str, question: AskedRequest, asked: AskedPolicy, decision: Decision, assumed: int) -> Decided:
        """Make the answer to a question."""
        return cls(id, question, asked, decision, decision.saved_usd(asked.best, decision.index), assumed)

    def saved_usd(self, index: int) -> float | None:
        """Return what a candidate saves on this request; None where that is not known."""
        return self.decision.saved_usd(self.asked.best, index)
