"""`judge_requests` says what to ask a judge model of an answer, and `read_judgement` what it has said; neither makes a call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ipr_engine._files import sha256_hex
from ipr_engine.grading.grade import AnswerToGrade, Grade, UngradableError, grader_identity
from ipr_engine.grading.grader_specs import JudgeSpec
from ipr_engine.grading.plain_messages import plain_messages
from ipr_engine.grading.rubrics import DATA, LEFT_OUT, NEEDS_REFERENCE, PAIRWISE, POINTWISE, RUBRICS
from ipr_engine.grading.verifiers import read_json

ORDERS_DISAGREE = "the two orders disagree: a tie"
NOT_ASKED = "the judge was not asked: correctness needs a reference, pairwise a baseline, and both a request of texts"
NO_REPLY = "a reply of the judge is missing"
UNREADABLE = "a reply of the judge holds no verdict"
_OUT_OF_RANGE = "a reply of the judge has points out of range"
_POINTS = re.compile(
    r"(?:points|score|rating|grade)\b[^\d\n-]{0,20}(-?\d{1,6}(?:\.\d{1,6})?)|\[\[(\d{1,6}(?:\.\d{1,6})?)\]\]",
    re.IGNORECASE,
)
_VERDICT = re.compile(r"(?:verdict|winner|better)\b[^\n12]{0,30}?\b(1|2|tie)\b|\[\[(1|2|A|B|C|tie)\]\]", re.IGNORECASE)
_LETTERS = {"A": "1", "B": "2", "C": "tie"}


def judge_identity(spec: JudgeSpec, model: str) -> str:
    """Return the sha256 of everything that a judgement depends on; model: the judge's name, with its version."""
    return grader_identity(spec, model=model, texts=[_rubric(spec), POINTWISE, PAIRWISE, DATA])


def judge_requests(spec: JudgeSpec, one: AnswerToGrade, *, baseline: str | None = None) -> list[dict[str, Any]]:
    """Return the requests to a judge, in the form of OpenAI chat completions without a model.

    Args:
        baseline: the answer that a pairwise judgement compares with.
    Returns:
        One request, or, pairwise, two: the answer first, then the baseline first. None at all where the answer cannot be judged:
        `read_judgement` says so then. The same arguments give the same requests.
    """
    if (spec.rubric in NEEDS_REFERENCE and one.reference is None) or (spec.mode == "pairwise" and baseline is None):
        return []
    try:
        asked = "\n\n".join(f"[{m.get('role', 'user')}]\n{m['content']}" for m in plain_messages(one.body))
    except UngradableError:
        return []
    parts = {"request": asked}
    if one.reference is not None and spec.rubric != "helpfulness":
        several = one.reference if isinstance(one.reference, (list, tuple)) else [one.reference]
        parts["reference"] = "\n".join(map(str, several))
    if spec.mode == "pointwise":
        return [_request(spec, {**parts, "answer": one.answer})]
    first, second = one.answer, baseline or ""
    return [
        _request(spec, {**parts, "answer 1": shown_first, "answer 2": shown_second})
        for shown_first, shown_second in ((first, second), (second, first))
    ]


def read_judgement(spec: JudgeSpec, replies: Sequence[str | None]) -> Grade:
    """Return the grade that a judge's replies give, in the order of the requests; None: a call that failed.

    Pointwise, p of P points are a score of (p - 1) / (P - 1), and raw p. Pairwise, a win in both orders is 1, a loss in both 0, and
    anything in which the orders disagree a tie, 0.5, with the reason `ORDERS_DISAGREE`.
    """
    if not replies:
        return Grade(None, reason=NOT_ASKED)
    if len(replies) != (1 if spec.mode == "pointwise" else 2) or None in replies:
        return Grade(None, reason=NO_REPLY)
    texts = [reply.rpartition("</think>")[2] for reply in replies if reply is not None]
    if spec.mode == "pointwise":
        return _pointwise(spec, texts[0])
    verdicts = [_verdict(text) for text in texts]
    if None in verdicts:
        return Grade(None, reason=UNREADABLE)
    # What was first in one request is second in the other.
    first = {"1": 1.0, "2": 0.0, "tie": 0.5}[verdicts[0] or ""]
    second = {"1": 0.0, "2": 1.0, "tie": 0.5}[verdicts[1] or ""]
    return Grade(first, raw=first) if first == second else Grade(0.5, raw=0.5, reason=ORDERS_DISAGREE)


def disagreements(grades: Iterable[Grade]) -> int:
    """Count the judgements in which the two orders disagreed: how far the judge goes by the place of an answer."""
    return sum(grade.reason == ORDERS_DISAGREE for grade in grades)


def _rubric(spec: JudgeSpec) -> str:
    return RUBRICS.get(spec.rubric, spec.rubric)


def _request(spec: JudgeSpec, parts: dict[str, str]) -> dict[str, Any]:
    texts = {name: _shortened(text, spec.longest) for name, text in parts.items()}
    # No text holds a tag made of the hash of all of them; and the same texts have the same tag, so that a cache finds the request.
    tag = f"data-{sha256_hex(json.dumps(texts).encode())[:16]}"
    frame = (POINTWISE if spec.mode == "pointwise" else PAIRWISE).format(rubric=_rubric(spec), points=spec.points)
    data = "\n\n".join(f"The {name}:\n<{tag}>\n{text}\n</{tag}>" for name, text in texts.items())
    return {
        "messages": [
            {"role": "system", "content": f"{frame}\n\n{DATA.format(tag=tag)}"},
            {"role": "user", "content": f"{data}\n\nReply with JSON alone: {_shape(spec)}"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "judgement", "strict": True, "schema": _schema(spec)},
        },
        "max_tokens": spec.max_tokens,
        "temperature": 0,
    }


def _shape(spec: JudgeSpec) -> str:
    said = f'"points": 1 to {spec.points}' if spec.mode == "pointwise" else '"verdict": "1", "2" or "tie"'
    return f'{{"thoughts": "...", {said}}}'


def _schema(spec: JudgeSpec) -> dict[str, Any]:
    if spec.mode == "pointwise":
        said: dict[str, Any] = {"points": {"type": "integer", "enum": list(range(1, spec.points + 1))}}
    else:
        said = {"verdict": {"type": "string", "enum": ["1", "2", "tie"]}}
    properties = {"thoughts": {"type": "string"}, **said}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _shortened(text: str, longest: int) -> str:
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}{LEFT_OUT.format(count=len(text) - 2 * half)}{text[len(text) - half :]}"


def _pointwise(spec: JudgeSpec, reply: str) -> Grade:
    said = _field(reply, "points")
    if said is None:
        found = [one or other for one, other in _POINTS.findall(reply)]
        said = float(found[-1]) if found else None
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        return Grade(None, reason=UNREADABLE)
    if not 1 <= said <= spec.points:
        return Grade(None, reason=_OUT_OF_RANGE)
    return Grade((said - 1) / (spec.points - 1), raw=float(said))


def _verdict(reply: str) -> str | None:
    said = _field(reply, "verdict")
    if said is None:
        found = [one or other for one, other in _VERDICT.findall(reply)]
        said = found[-1] if found else None
    word = str(said).strip().lower()
    word = _LETTERS.get(word.upper(), word)
    return word if word in ("1", "2", "tie") else None


def _field(reply: str, name: str) -> Any:
    try:
        said = read_json(reply.strip())
    except ValueError:
        return None
    value = said.get(name) if isinstance(said, dict) else None
    if name == "points" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value
