"""This file sets documents under instructions on which the outcome depends: a constructed set, whose expectations are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.training.platt import sigmoid
from studies.cases import Case

Array = npt.NDArray[np.float64]

DOCUMENTS, A_DOCUMENT, CANDIDATES = 400, 6, 8  # documents of a source, instructions that each stands under, candidates
SHIFT = 1.5  # standard deviation of what an instruction adds to a candidate's log-odds
LOW, HIGH = 0.15, 0.85  # expectations where a candidate's recorded outcome is 0 and 1, before the instruction

INSTRUCTIONS = (
    "Summarize the text below in one sentence.",
    "Translate the following text into French.",
    "Count the words of this text.",
    "List every number that occurs in the text.",
    "Answer the question below.",
    "Rewrite the text for a child of ten years.",
    "Find grammatical errors in the following passage.",
    "Which topic is the passage about? Name it in two words.",
    "Extract all named entities from the text as JSON.",
    "Write a poem about what is described below.",
    "Classify the sentiment of the following text.",
    "Explain step by step how to solve the following.",
)
# What stands before every instruction, by the name of the way.
OPENINGS = MappingProxyType({"first": "", "after an opening": "Hello, I need your help with a text today. "})


@dataclass(frozen=True, eq=False)
class Instructed:
    """An `Instructed` is a constructed set.

    Attributes:
        prompts: (rows,) an instruction, a blank line, a document. keys: (rows,) the document of each.
        instruction: (rows,) its number. expected: (rows, candidates) the chance of success. drawn: 0 or 1 by that chance.
    """

    prompts: list[str]
    keys: list[str]
    instruction: npt.NDArray[np.int64]
    expected: Array
    drawn: Array


def instructed(case: Case, opening: str, *, seed: int = 0) -> Instructed:
    """Set documents of a case under instructions.

    expected = sigmoid( logit(LOW + (HIGH - LOW) * recorded outcome) + shift of the instruction and the candidate ). Shifts are drawn
    once. They, the documents, which instructions these get, and the outcomes are the same whatever the opening.
    """
    random = np.random.default_rng(seed)
    prompts = [prompt for part in (case.train, case.test) for prompt in part.data.prompts]
    questions = [key for part in (case.train, case.test) for key in part.data.question_keys]
    recorded = np.concatenate([case.train.quality, case.test.quality])[:, :CANDIDATES]
    documents = random.permutation(_first_of_each(questions))[:DOCUMENTS]
    shift = random.normal(0.0, SHIFT, (len(INSTRUCTIONS), recorded.shape[1]))
    rows = [(d, k) for d in documents for k in random.permutation(len(INSTRUCTIONS))[:A_DOCUMENT]]
    of_row, instruction = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    base = LOW + (HIGH - LOW) * recorded[of_row]
    expected = np.asarray(sigmoid(np.log(base / (1 - base)) + shift[instruction]))
    return Instructed(
        [f"{opening}{INSTRUCTIONS[k]}\n\n{prompts[d]}" for d, k in rows],
        [questions[d] for d, _ in rows],
        instruction,
        expected,
        (random.random(expected.shape) < expected).astype(np.float64),
    )


def _first_of_each(keys: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the first row of each key."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return np.array(list(first.values()), np.int64)
