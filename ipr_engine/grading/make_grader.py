"""`make_grader` makes a grader of its spec; what may fail or has to be loaded does so here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.code_grader import CodeGrader
from ipr_engine.grading.grade import Grader
from ipr_engine.grading.grader_specs import CodeSpec, GraderSpec, JudgeSpec, MathSpec, RewardSpec
from ipr_engine.grading.math_grader import MathGrader
from ipr_engine.grading.reward_model import Progress, RewardModel
from ipr_engine.grading.verifiers import Verifier

_GRADERS: dict[type, Callable[[Any], Grader]] = {CodeSpec: CodeGrader, MathSpec: MathGrader}


def make_grader(spec: GraderSpec, *, progress: Progress | None = None) -> Grader:
    """Return the grader that a spec states.

    Args:
        progress: of a reward model: is told answers done and answers in all.
    Raises:
        InvalidInputError: the spec is a judge's, which has to be asked (`judge_requests`), or names what is none.
        BackendUnavailableError: a package, a device, a model or the sandbox is not there.
    """
    if isinstance(spec, JudgeSpec):
        raise InvalidInputError(
            "kind: a judge is asked over the network, by who collects; see judge_requests and read_judgement"
        )
    if isinstance(spec, RewardSpec):
        return RewardModel(spec, progress=progress)
    return _GRADERS.get(type(spec), Verifier)(spec)
