"""A `Verifier` holds answers against right ones in this process: exact, contains, numeric, choice, regex, json."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.grade import AnswerToGrade, Grade, UngradableError, grader_identity
from ipr_engine.grading.grader_specs import (
    ChoiceSpec,
    ContainsSpec,
    ExactSpec,
    Ignored,
    JsonSpec,
    NumericSpec,
    OverlapSpec,
    RegexSpec,
)
from ipr_engine.grading.number_answers import Number, answered_number, boxed, final_part, numbers_in, same_number

VerifierSpec = ExactSpec | ContainsSpec | OverlapSpec | NumericSpec | ChoiceSpec | RegexSpec | JsonSpec
Verdict = Grade | bool

_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_SHOWN = r"[\s:=*_(\[\\{]{0,20}(?:boxed|text)?[\s*_({\[]{0,8}"
_IS = r"(?:\s{1,8}(?:is|would\s{1,8}be)\b|[\s*_]{0,8}[:=])"
_SAID = tuple(
    re.compile(rf"(?i:{said}{_SHOWN})([A-Z])(?![\w'’])")
    for said in (
        rf"answer{_IS}(?:[\s:*_(]{{0,8}}(?:option|choice)\b)?",
        rf"(?:option|choice){_IS}",
        r"(?:answer|option|choice)\b",
    )
)
# "A" and "I" are words, too: of no option where a word follows that no sentence goes on with after its subject.
_A_WORD = re.compile(
    r"[ ](?!(?:and|or|nor|not|but|is|was|are|has|does|do|can|could|should|will|would|must|seems|fits|as|because|since|if|when|where"
    r"|which|that|while|for|with|in|by|due|from|on|at|of|to|only|alone|being|instead|here)\b)[a-z]"
)
_I_WORD = re.compile(
    r"[ ](?!(?:and|or|nor|not|but|is|has|does|seems|fits|as|because|since|which|for|with|in|by|due)\b)[a-z]"
)


class Verifier:
    """A `Verifier` grades 1 where an answer is right, else 0; without a reference there is no score."""

    def __init__(self, spec: VerifierSpec) -> None:
        """Prepare what the kind needs.

        Raises:
            InvalidInputError: a pattern is none. BackendUnavailableError: the package `regex` is missing.
        """
        more = {}
        if isinstance(spec, RegexSpec):
            regex = need("regex", "a grader of kind regex", "grade")
            more["regex"] = regex.__version__
            if spec.pattern is not None:
                _compiled(regex, spec, spec.pattern)
        self.identity = grader_identity(spec, **more)
        self._spec = spec

    def grade(self, answers: Sequence[AnswerToGrade]) -> list[Grade]:
        """Return one grade an answer."""
        return [self._grade(one) for one in answers]

    def _grade(self, one: AnswerToGrade) -> Grade:
        check: Callable[..., Verdict] = _CHECKS[type(self._spec)]
        try:
            verdict = check(self._spec, final_part(one.answer).strip(), one.reference)
        except UngradableError as error:
            return Grade(None, reason=str(error))
        return verdict if isinstance(verdict, Grade) else Grade(float(verdict))


def normalised(text: str, ignore: Sequence[Ignored]) -> str:
    """Return a text in NFKC without what makes no difference.

    case: folded. punctuation: whatever is neither letter, mark, digit, symbol nor blank becomes a blank, but for a minus, a point or a
    comma between digits and a minus before one; apostrophes go. articles: a, an, the. whitespace: runs become one blank, none at the ends.
    """
    text = unicodedata.normalize("NFKC", text)
    if "case" in ignore:
        text = text.casefold()
    if "punctuation" in ignore:
        text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
        text = "".join(_unpunctuated(text, at) for at in range(len(text)))
    if "articles" in ignore:
        text = _ARTICLES.sub(" ", text)
    return " ".join(text.split()) if "whitespace" in ignore else text


def _unpunctuated(text: str, at: int) -> str:
    character = text[at]
    if not unicodedata.category(character).startswith("P"):
        return character
    after = text[at + 1 : at + 2].isdigit()
    before = text[at - 1 : at].isdigit() if at else False
    kept = (character in ".," and before and after) or (character == "-" and after and not text[at - 1 : at].isalpha())
    return character if kept else " "


def _accepted(reference: Any) -> list[str]:
    """Return the accepted answers of a reference: a text, a number, or a list of these."""
    several = reference if isinstance(reference, (list, tuple)) else [reference]
    found = [_text(one) for one in several if isinstance(one, (str, int, float)) and not isinstance(one, bool)]
    if not found or len(found) < len(several):
        raise UngradableError("reference: expected a text, a number, or a list of them")
    if not all(one.strip() for one in found):
        raise UngradableError("reference: an accepted answer is empty")
    return found


def _text(value: str | float) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _compared(answer: str, reference: Any, ignore: Sequence[Ignored]) -> Iterator[tuple[str, str]]:
    """Yield an answer beside each accepted one, both normalised.

    Where that leaves nothing of one of them, articles make a difference; where it still does, punctuation too.
    """
    first = normalised(answer, ignore)
    for one in _accepted(reference):
        said, wanted, left = first, normalised(one, ignore), ignore
        for name in ("articles", "punctuation"):
            if not (said.strip() and wanted.strip()):
                left = [other for other in left if other != name]
                said, wanted = normalised(answer, left), normalised(one, left)
        yield said, wanted


def _exact(spec: ExactSpec, answer: str, reference: Any) -> Verdict:
    return any(said == wanted for said, wanted in _compared(answer, reference, spec.ignore))


def _contains(spec: ContainsSpec, answer: str, reference: Any) -> Verdict:
    return any(_holds(said, wanted) for said, wanted in _compared(answer, reference, spec.ignore))


def _holds(text: str, words: str) -> bool:
    """Return whether these words stand in a text, cut off from letters and digits where their script parts words by blanks."""
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if not (_joined(text[at - 1 : at] if at else "", words[0]) or _joined(words[-1], text[end : end + 1])):
            return True
        at = text.find(words, at + 1)
    return False


def _joined(one: str, other: str) -> bool:
    both = (one, other)
    return all(c.isalnum() for c in both) and not any(unicodedata.east_asian_width(c) in "WF" for c in both)


def _overlap(spec: OverlapSpec, answer: str, reference: Any) -> Verdict:
    shares = []
    for pair in _compared(answer, reference, spec.ignore):
        said, wanted = (text.replace(" ", "") for text in pair)
        grams = {wanted[at : at + 3] for at in range(max(1, len(wanted) - 2))}
        shares.append(sum(gram in said for gram in grams) / len(grams))
    return Grade(None, raw=max(shares))


def _numeric(spec: NumericSpec, answer: str, reference: Any) -> Verdict:
    accepted = [_reference_number(one) for one in _accepted(reference)]
    numbers = [one for one in accepted if one is not None]
    if len(numbers) < len(accepted):
        raise UngradableError("reference: expected a number")
    said = answered_number(answer, decimal_comma=spec.decimal_comma)
    if said is None:
        return Grade(0.0, reason="no number in the answer")
    return any(same_number(said, one, spec.tolerance) for one in numbers)


def _reference_number(reference: str) -> Number | None:
    found = numbers_in(reference)
    # A worked reference, as GSM8K's, ends up with its number as an answer does.
    return found[0] if len(found) == 1 else answered_number(reference)


def _choice(spec: ChoiceSpec, answer: str, reference: Any) -> Verdict:
    wanted = {one.strip().strip("().").upper() for one in _accepted(reference)}
    if not all(len(one) == 1 and one in spec.letters for one in wanted):
        raise UngradableError(f"reference: expected a letter of {spec.letters}")
    said = chosen_letter(answer, spec.letters)
    return Grade(0.0, reason="no option in the answer") if said is None else said in wanted


def chosen_letter(answer: str, letters: str) -> str | None:
    r"""Return the option that an answer names, or None.

    It is the letter in the last `\boxed{}`; else after the last "answer is" or "answer:"; else after the last "option is" or the like;
    else after the last "answer", "option" or "choice"; else the last one that stands alone on a line, with or without brackets, point,
    colon or stars; else the first line's, where that begins with a letter and a bracket, point or colon; else the only capital letter
    of the options that stands alone anywhere. "A" and "I" that begin or stand in a sentence as words are none.
    """
    of = f"[{letters}]"
    held = boxed(answer)
    if held is not None and (letter := re.search(rf"(?<!\w)({of})(?!\w)", held.replace("\\text", " "))):
        return letter[1]
    for said in _SAID:
        marked = [match[1] for match in said.finditer(answer) if match[1] in letters and not _is_a_word(match)]
        if marked:
            return marked[-1]
    lines = re.findall(rf"^[ \t*_(\[]{{0,8}}({of})[ \t*_)\].:]{{0,8}}$", answer, re.MULTILINE)
    if lines:
        return str(lines[-1])
    first = re.match(rf"[*_(\[]{{0,4}}({of})[*_]{{0,2}}[)\].:]", answer)
    if first:
        return first[1]
    alone = list(re.finditer(rf"(?<![\w'’])({of})(?![\w'’])", answer))
    found = {match[1] for match in alone} - {match[1] for match in alone if _is_a_word(match)}
    return found.pop() if len(found) == 1 else None


def _is_a_word(letter: re.Match[str]) -> bool:
    """Return whether the letter that a match ends with is an article or a pronoun by what follows it."""
    word = {"A": _A_WORD, "I": _I_WORD}.get(letter[1])
    return word is not None and word.match(letter.string, letter.end()) is not None


def _regex(spec: RegexSpec, answer: str, reference: Any) -> Verdict:
    regex = need("regex", "a grader of kind regex", "grade")
    given = [spec.pattern] if spec.pattern is not None else _accepted(reference)
    for pattern in given:
        try:
            compiled = _compiled(regex, spec, pattern)
        except InvalidInputError:
            raise UngradableError("reference: expected a pattern of the package regex") from None
        find = compiled.fullmatch if spec.whole else compiled.search
        try:
            if find(answer, timeout=spec.seconds) is not None:
                return True
        except TimeoutError:
            raise UngradableError("the pattern took longer than seconds allows") from None
        except MemoryError:
            raise UngradableError("the pattern took too much memory") from None
    return False


def _compiled(regex: Any, spec: RegexSpec, pattern: str) -> Any:
    try:
        return regex.compile(pattern, regex.IGNORECASE if spec.ignore_case else 0)
    except (regex.error, RecursionError, OverflowError):
        raise InvalidInputError(
            "pattern: expected a pattern of the package regex, got one that it cannot compile"
        ) from None


def _json(spec: JsonSpec, answer: str, reference: Any) -> Verdict:
    try:
        said = read_json(answer)
    except ValueError:
        return Grade(0.0, reason="no JSON in the answer")
    if spec.keys and not (isinstance(said, dict) and set(spec.keys) <= said.keys()):
        return Grade(0.0, reason="a key is missing")
    if reference is None:
        return True
    if isinstance(reference, str):
        try:
            reference = _loaded(reference)
        except ValueError:
            raise UngradableError("reference: expected JSON") from None
    return _same(said, reference)


def read_json(answer: str) -> Any:
    """Return the JSON of an answer: the whole, else its last fenced block, else from its first bracket to its last.

    Raises:
        ValueError: there is none, it is nested too deeply, or it holds NaN or Infinity.
    """
    parts = [answer, *_FENCE.findall(answer)[-1:]]
    starts = [at for at in (answer.find("{"), answer.find("[")) if at >= 0]
    if starts:
        parts.append(answer[min(starts) : max(answer.rfind("}"), answer.rfind("]")) + 1])
    for part in parts:
        try:
            return _loaded(part)
        except ValueError:
            continue
    raise ValueError("no JSON")


def _loaded(text: str) -> Any:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal; 1 and 1.0 are, true and 1 are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


_CHECKS: dict[type, Callable[..., Verdict]] = {
    ExactSpec: _exact,
    ContainsSpec: _contains,
    OverlapSpec: _overlap,
    NumericSpec: _numeric,
    ChoiceSpec: _choice,
    RegexSpec: _regex,
    JsonSpec: _json,
}
