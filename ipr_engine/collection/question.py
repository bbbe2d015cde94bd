"""A `Question` is one prompt to collect outcomes for: what every candidate is asked, and what its answers are graded by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipr_engine._read_only import read_only


@dataclass(frozen=True, kw_only=True)
class LoggedAnswer:
    """A `LoggedAnswer` is what a candidate answered before: read from a log, paid for already.

    Attributes:
        text: the answer. finish_reason: as the provider gave it ("stop", "length", "content_filter", ...); None where not logged.
        input_tokens, output_tokens: as billed; None where not logged. cost_usd: likewise, USD.
        seconds: from the request to the whole answer; None where not logged.
    """

    text: str = field(repr=False)
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A `Question` is one prompt of a collection.

    Attributes:
        prompt_id: unique in the collection.
        prompt: the text that is routed: what `parse_request(body).encoded` gives.
        body: the part of the request that is the same for every candidate, in the form of OpenAI chat completions: `messages`, and
            `tools`, `response_format` and the like where there are any. No model, no limit of tokens.
        reference: what a right answer is, for graders: a text, a number, a list of texts, tests of code; None where not known.
        grader: the name of the plan's grader for this prompt; None: the plan's first.
        dataset, split, question_key: as in outcome tables; None where not stated.
        task: what its caller says it is for, a name of 1 to 200 characters; None where not stated.
        labels: candidate -> quality in [0, 1] that its owner gave; it wins over every grader.
        answers: candidate -> what it answered before.
    """

    prompt_id: str
    prompt: str
    body: Mapping[str, Any]
    reference: Any = None
    grader: str | None = None
    dataset: str | None = None
    split: str | None = None
    question_key: str | None = None
    task: str | None = None
    labels: Mapping[str, float] = field(default_factory=lambda: read_only({}))
    answers: Mapping[str, LoggedAnswer] = field(default_factory=lambda: read_only({}))

    def __repr__(self) -> str:
        """Show the id alone: what is printed into a log shall hold no prompt."""
        return f"Question({self.prompt_id!r})"
