"""A `Question` is one request as a server decides it; a `Decided` is the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ipr_engine.decision.decision import Decision
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.controls import Controls
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import Tenant


@dataclass(frozen=True, slots=True)
class Question:
    """A `Question` is one request as it is decided.

    Attributes:
        prompt: the body, or whatever `parse_request` takes. controls: what the request asks for.
        tenant: who asks. model: the name that was asked for. form: the format that who answers must speak; None: nobody is asked.
    """

    prompt: Any
    controls: Controls
    tenant: Tenant
    model: str
    form: RequestFormat | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """A `Decided` is the answer to a question.

    Attributes:
        id: of the decision, in replies, records and logs.
        saved: what the chosen candidate saves: `saved_usd` of it.
        assumed: tokens billed by assumption, of parts that cannot be counted.
    """

    id: str
    question: Question
    asked: AskedPolicy
    decision: Decision
    saved: float | None
    assumed: int = 0

    @classmethod
    def of(cls, id: str, question: Question, asked: AskedPolicy, decision: Decision, assumed: int) -> Decided:
        """Make the answer to a question."""
        return cls(id, question, asked, decision, _saved_usd(asked.best, decision, decision.index), assumed)

    def saved_usd(self, index: int) -> float | None:
        """Return what a candidate is predicted to cost less than the policy's best single one on this request.

        None where that one is not known, or could not serve this request.
        """
        return _saved_usd(self.asked.best, self.decision, index)


def _saved_usd(best: int | None, decision: Decision, index: int) -> float | None:
    if best is None or (decision.may_keep_out and decision.unable(best) is not None):
        return None
    saved = decision.usd_of(best) - decision.usd_of(index)
    return saved if math.isfinite(saved) else None
