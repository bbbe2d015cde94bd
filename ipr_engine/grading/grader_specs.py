"""A `GraderSpec` is a grader as a plan's YAML states it, `{kind: numeric, tolerance: 0.01}`; docs/grading.md has the table of kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.rubrics import RUBRICS

Ignored = Literal["case", "whitespace", "punctuation", "articles"]
IGNORED: tuple[Ignored, ...] = ("case", "whitespace", "punctuation", "articles")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise InvalidInputError(f"{name}: expected a number above 0, got {value:g}")


@dataclass(frozen=True, kw_only=True)
class ExactSpec:
    """An answer is right where it equals an accepted one; ignore: what makes no difference. Unicode: NFKC."""

    kind: Literal["exact"] = "exact"
    ignore: tuple[Ignored, ...] = IGNORED


@dataclass(frozen=True, kw_only=True)
class ContainsSpec:
    """An answer is right where an accepted one stands in it, as whole words; ignore: as in `ExactSpec`."""

    kind: Literal["contains"] = "contains"
    ignore: tuple[Ignored, ...] = IGNORED


@dataclass(frozen=True, kw_only=True)
class OverlapSpec:
    """An answer's `raw` is the share of an accepted answer's trigrams of letters that stand in it: it forgives inflection.

    There is no score before a calibration. ignore: as in `ExactSpec`.
    """

    kind: Literal["overlap"] = "overlap"
    ignore: tuple[Ignored, ...] = IGNORED


@dataclass(frozen=True, kw_only=True)
class NumericSpec:
    """An answer is right where its number is within tolerance * max(1, abs(reference)) of an accepted one.

    tolerance: None: none beside a whole number, 1e-6 beside another. decimal_comma: 1.234,5 is read as 1234.5.
    """

    kind: Literal["numeric"] = "numeric"
    tolerance: float | None = None
    decimal_comma: bool = False

    def __post_init__(self) -> None:
        if self.tolerance is not None and not 0 <= self.tolerance < float("inf"):
            raise InvalidInputError(f"tolerance: expected a number >= 0, got {self.tolerance:g}")


@dataclass(frozen=True, kw_only=True)
class ChoiceSpec:
    """An answer is right where it names the reference's option; letters: of the options, capitals of A to Z."""

    kind: Literal["choice"] = "choice"
    letters: str = "ABCDEFGHIJ"

    def __post_init__(self) -> None:
        if not self.letters or not all("A" <= letter <= "Z" for letter in self.letters):
            raise InvalidInputError("letters: expected capitals of A to Z, such as ABCD")


@dataclass(frozen=True, kw_only=True)
class RegexSpec:
    """An answer is right where a pattern is found in it.

    pattern: of the package `regex`; None: the reference is the pattern. whole: the answer must match as a whole, but for
    blanks around it. seconds: most time of one search.
    """

    kind: Literal["regex"] = "regex"
    pattern: str | None = None
    ignore_case: bool = False
    whole: bool = False
    seconds: float = 1.0

    def __post_init__(self) -> None:
        _positive("seconds", self.seconds)


@dataclass(frozen=True, kw_only=True)
class JsonSpec:
    """An answer is right where it is JSON, has these keys at its top, and equals the reference, where there is one."""

    kind: Literal["json"] = "json"
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MathSpec:
    """An answer is right where math-verify finds it equal to the reference; seconds: most time of one answer."""

    kind: Literal["math"] = "math"
    seconds: float = 10.0

    def __post_init__(self) -> None:
        _positive("seconds", self.seconds)


@dataclass(frozen=True, kw_only=True)
class CodeSpec:
    """An answer's Python code gets the share of the reference's tests that it passes.

    Attributes:
        seconds: of all tests of one answer. test_seconds: of one test. memory_mb: of each process. processes: at most, threads too.
        file_mb: that it may write. parallel: answers graded at once.
    """

    kind: Literal["tests"] = "tests"
    seconds: float = 10.0
    test_seconds: float = 2.0
    memory_mb: int = 512
    processes: int = 8
    file_mb: int = 16
    parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("seconds", "test_seconds", "memory_mb", "file_mb", "parallel"):
            _positive(name, getattr(self, name))
        if self.processes < 2:
            raise InvalidInputError(f"processes: expected 2 or more, got {self.processes}: a test is one of its own")


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """An answer gets the reward of a sequence classifier with one label, read by transformers.

    Attributes:
        model: a folder, or a name of the Hugging Face hub. revision: of the hub's; None: its newest.
        device: as torch names it. dtype: of the weights.
        max_tokens: of a conversation; of a longer one the beginning is left out, so that the answer is read to its end.
        batch_tokens: of one call, padding counted.
    """

    kind: Literal["reward"] = "reward"
    model: str = "Skywork/Skywork-Reward-V2-Qwen3-0.6B"
    revision: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_tokens: int = 4096
    batch_tokens: int = 16384

    def __post_init__(self) -> None:
        for name in ("max_tokens", "batch_tokens"):
            _positive(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True)
class JudgeSpec:
    """An answer gets points of a judge model, which is asked by whoever collects.

    Attributes:
        mode: pointwise: the answer alone, 1 to `points`; pairwise: beside a baseline answer, in both orders.
        rubric: the name of a built-in one, correctness or helpfulness, or a text of one's own.
        points: the highest of a pointwise judgement. max_tokens: of the judge's reply.
        longest: characters of a text that are put to the judge; what is over is left out of its middle, and said.
    """

    kind: Literal["judge"] = "judge"
    mode: Literal["pointwise", "pairwise"] = "pointwise"
    rubric: str = "helpfulness"
    points: int = 10
    max_tokens: int = 1024
    longest: int = 40_000

    def __post_init__(self) -> None:
        if self.rubric not in RUBRICS and len(self.rubric.split()) < 2:
            raise InvalidInputError(f"rubric: expected {', '.join(RUBRICS)} or a text, got one word that is neither")
        if self.points < 2:
            raise InvalidInputError(f"points: expected 2 or more, got {self.points}")
        for name in ("max_tokens", "longest"):
            _positive(name, getattr(self, name))


GraderSpec = (
    ExactSpec
    | ContainsSpec
    | OverlapSpec
    | NumericSpec
    | ChoiceSpec
    | RegexSpec
    | JsonSpec
    | MathSpec
    | CodeSpec
    | RewardSpec
    | JudgeSpec
)
