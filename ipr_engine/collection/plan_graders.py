"""`plan_graders` reads the graders of a plan: how each grades, and, of a judge, who is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ipr_engine.documents.typed_document import read_typed, told
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.grader_specs import GraderSpec, JsonSpec, JudgeSpec, RegexSpec, RewardSpec
from ipr_engine.grading.rubrics import NEEDS_REFERENCE

_NAME = re.compile(r"[\w-]{1,64}\Z")
OWN = ("judge", "baseline", "calibrate")
KINDS: Mapping[str, Any] = {spec.__dataclass_fields__["kind"].default: spec for spec in get_args(GraderSpec)}


@dataclass(frozen=True, kw_only=True)
class PlanGrader:
    """A `PlanGrader` is one grader of a plan.

    Attributes:
        spec: how it grades. judge: the entry of who is asked, of a judge. baseline: the candidate that a pairwise judge compares with.
        calibrate: whether its scores are made qualities by the labels that the prompts come with.
    """

    spec: GraderSpec
    judge: Mapping[str, Any] | None = None
    baseline: str | None = None
    calibrate: bool = False

    @property
    def needs_reference(self) -> bool:
        """Return whether it can say nothing of an answer without a reference."""
        if isinstance(self.spec, JudgeSpec):
            return self.spec.rubric in NEEDS_REFERENCE
        if isinstance(self.spec, RegexSpec):
            return self.spec.pattern is None
        return not isinstance(self.spec, (JsonSpec, RewardSpec))


def plan_graders(graders: Mapping[str, Mapping[str, Any]], candidates: Sequence[str]) -> dict[str, PlanGrader]:
    """Return name -> grader.

    Raises:
        InvalidInputError: names the key, `graders.right.tolerance`, say.
    """
    for name in graders:
        if not _NAME.match(name):  # it is in the name of the file of its calibration
            raise InvalidInputError(f"graders: expected names of letters, digits, _ and -, got {told(name)}")
    return {name: _grader(f"graders.{name}", given, candidates) for name, given in graders.items()}


def _grader(place: str, given: Mapping[str, Any], candidates: Sequence[str]) -> PlanGrader:
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidInputError(f"{place}.kind: expected one of {', '.join(KINDS)}, got {told(str(kind))}")
    spec, mistakes = read_typed(KINDS[kind], {key: value for key, value in given.items() if key not in OWN})
    if spec is None:
        raise InvalidInputError(f"{place}.{mistakes[0].text}")
    calibrate = given.get("calibrate", kind in ("reward", "overlap"))
    if type(calibrate) is not bool:
        raise InvalidInputError(f"{place}.calibrate: expected true or false")
    if not isinstance(spec, JudgeSpec):
        for key in ("judge", "baseline"):
            if key in given:
                raise InvalidInputError(f"{place}.{key}: is of graders of the kind judge")
        return PlanGrader(spec=spec, calibrate=calibrate)
    if "max_tokens" in given:
        raise InvalidInputError(f"{place}.max_tokens: has no effect in a plan; give it in judge, whose reply it limits")
    if spec.mode == "pairwise" and "points" in given:
        raise InvalidInputError(f"{place}.points: has no effect on a pairwise judge; leave it out")
    judge, baseline = given.get("judge"), given.get("baseline")
    if (baseline is not None) != (spec.mode == "pairwise") or (baseline is not None and baseline not in candidates):
        raise InvalidInputError(
            f"{place}.baseline: expected the candidate that a pairwise judge compares with, and no other has one"
        )
    if not isinstance(judge, Mapping):
        raise InvalidInputError(
            f"{place}.judge: expected who is asked, as a candidate: {{name: ..., provider: ..., input_usd_per_1m: ..., "
            "output_usd_per_1m: ..., max_tokens: ...}"
        )
    if judge.get("name") in candidates:
        raise InvalidInputError(f"{place}.judge.name: a candidate is called so; give the judge a name of its own")
    return PlanGrader(spec=spec, judge=judge, baseline=baseline, calibrate=calibrate)
