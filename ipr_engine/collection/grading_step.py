"""`PlanGraders` grade the answers of a ledger, page by page; every grade is noted, and none is made twice."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ipr_engine.collection.asked_candidate import AskedCandidate, how_asked
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.gradable import Gradable
from ipr_engine.collection.graded_pages import note_grades, pages_of_gradable, ungraded
from ipr_engine.collection.judging import Judging, judged
from ipr_engine.collection.ledger import Ledger
from ipr_engine.collection.plan_graders import PlanGrader
from ipr_engine.grading.grade import Grade, Grader
from ipr_engine.grading.grader_specs import GraderSpec, JudgeSpec
from ipr_engine.grading.judge import judge_identity
from ipr_engine.grading.make_grader import make_grader

Say = Callable[[str], None]


@dataclass
class GradedCounts:
    """A `GradedCounts` counts what one grader did in a run. graded: answers; reasons: why others have no grade -> how many."""

    graded: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, grades: Sequence[Grade]) -> None:
        """Count grades."""
        for grade in grades:
            if grade.score is None and grade.raw is None:
                self.reasons[grade.reason or "no grade"] += 1
            else:
                self.graded += 1

    def __add__(self, other: GradedCounts) -> GradedCounts:
        """Return what was graded in both, and the reasons of the first, which came later."""
        return GradedCounts(self.graded + other.graded, self.reasons)


def _how(plan: CollectionPlan, asked: AskedCandidate) -> tuple[object, ...]:
    return how_asked(asked, plan.providers[asked.provider])


def _baseline(plan: CollectionPlan, grader: PlanGrader) -> list[AskedCandidate]:
    """Return who a pairwise judge compares with: other answers of it are other judgements."""
    return [one for one in plan.asked if one.name == grader.baseline]


class PlanGraders:
    """`PlanGraders` are the graders of a plan, made: models are loaded, packages are there.

    Attributes:
        filed: name -> what its grades are filed under (`grade_key`).
        judgings: those that a judge model is asked for. specs: of the others, which grade here or on workers.
    """

    def __init__(
        self, plan: CollectionPlan, graders: Mapping[str, PlanGrader], say: Say = lambda message: None
    ) -> None:
        """Make every grader.

        Raises:
            BackendUnavailableError: a package, a model or the sandbox is not there.
        """
        self._plan, self._say = plan, say
        self._made: dict[str, Grader] = {}
        self.judgings: dict[str, Judging] = {}
        self.specs: dict[str, GraderSpec] = {}
        identities: dict[str, str] = {}
        for name, one in graders.items():
            if isinstance(one.spec, JudgeSpec):
                judge = plan.judges[name]
                self.judgings[name] = Judging(name=name, spec=one.spec, judge=judge, baseline=one.baseline)
                identities[name] = json.dumps(
                    (
                        judge_identity(one.spec, judge.model),
                        *(_how(plan, who) for who in (judge, *_baseline(plan, one))),
                    )
                )
            else:
                self.specs[name], self._made[name] = one.spec, make_grader(one.spec)
                identities[name] = self._made[name].identity
        self.filed = {name: hashlib.sha256(identity.encode()).digest() for name, identity in identities.items()}

    def grade(self, ledger: Ledger, run: int) -> dict[str, GradedCounts]:
        """Grade what has no grade yet; return name -> what was done."""
        return {name: self.grade_one(name, ledger, run) for name in self.filed}

    def grade_one(self, name: str, ledger: Ledger, run: int) -> GradedCounts:
        """Grade what one grader has not graded yet."""
        counts, filed = GradedCounts(), self.filed[name]
        for page in pages_of_gradable(ledger, self._plan, run, name):
            todo = ungraded(ledger, page, filed)
            if not todo:
                continue
            if name in self._made:
                grades = self._made[name].grade([one.answer for one in todo])
            else:
                by_key = {
                    one.key: grade
                    for one, grade in zip(page, judged(self.judgings[name], self._plan, ledger, page), strict=True)
                }
                grades = [by_key[one.key] for one in todo]
            note_grades(ledger, todo, grades, filed)
            counts.count(grades)
            self._say(f"grader {name}: {counts.graded:,} answers graded")
        return counts

    def pages(
        self, name: str, ledger: Ledger, run: int, only: Collection[int] | None = None
    ) -> Iterator[list[Gradable]]:
        """Yield the answers that a grader grades, as `pages_of_gradable` does."""
        return pages_of_gradable(ledger, self._plan, run, name, only)
