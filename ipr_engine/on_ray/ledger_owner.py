"""A `LedgerOwner` is the one process that reads and writes a ledger while workers grade its answers: an actor on the ledger's machine."""

from __future__ import annotations

from collections.abc import Sequence

from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.gradable import Gradable
from ipr_engine.collection.graded_pages import note_grades, pages_of_gradable, ungraded
from ipr_engine.collection.grading_step import GradedCounts
from ipr_engine.collection.ledger import Ledger
from ipr_engine.grading.grade import Grade

TOGETHER = 16  # prompts that a worker takes at a time, and that are begun again where it is lost


class LedgerOwner:
    """A `LedgerOwner` gives answers of a run that a grader has not graded yet, notes its grades, and counts them.

    Args:
        path: of the ledger. grader: its name in the plan. filed: what its grades are filed under.
    """

    def __init__(self, path: str, plan: CollectionPlan, run: int, grader: str, filed: bytes) -> None:
        self._ledger, self._plan, self._run = Ledger(path), plan, run
        self._grader, self._filed = grader, filed
        self._counts = GradedCounts()

    def open_questions(self) -> list[list[int]]:
        """Return the prompts with answers that have no grade yet, some together: numbers of their rows."""
        found = []
        for page in pages_of_gradable(self._ledger, self._plan, self._run, self._grader):
            todo = sorted({one.question for one in ungraded(self._ledger, page, self._filed)})
            found += [todo[begin : begin + TOGETHER] for begin in range(0, len(todo), TOGETHER)]
        return found

    def todo(self, questions: Sequence[int]) -> list[Gradable]:
        """Return the answers to these prompts that have no grade yet."""
        pages = pages_of_gradable(self._ledger, self._plan, self._run, self._grader, questions)
        return [one for page in pages for one in ungraded(self._ledger, page, self._filed)]

    def note(self, answers: Sequence[Gradable], grades: Sequence[Grade]) -> int:
        """Write grades; return how many answers were graded so far."""
        note_grades(self._ledger, answers, grades, self._filed)
        self._counts.count(grades)
        return self._counts.graded

    def end(self) -> GradedCounts:
        """Close the ledger; return what was done."""
        self._ledger.close()
        return self._counts
