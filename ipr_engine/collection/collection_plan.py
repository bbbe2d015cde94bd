"""A `CollectionPlan` says what is asked of whom, and what may be spent; `read_plan` reads it from YAML (docs/collecting.md)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from ipr_engine._files import as_path, sha256_hex
from ipr_engine.bundle.checks import is_amount, is_day
from ipr_engine.collection.acquisition_plan import AcquisitionPlan
from ipr_engine.collection.asked_candidate import AskedCandidate, asked_candidates, asked_judge
from ipr_engine.collection.bill import MOST_USD
from ipr_engine.collection.plan_graders import PlanGrader, plan_graders
from ipr_engine.collection.provider import Provider
from ipr_engine.collection.sources.prompt_source import PromptsGiven, prompt_sources
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS
from ipr_engine.data.repeated_scores import SAMPLES
from ipr_engine.data.table_files import FORMATS
from ipr_engine.documents.typed_document import Mistake, read_typed, told
from ipr_engine.documents.yaml_file import YamlKind, read_yaml, told_at_lines
from ipr_engine.errors import InvalidInputError

PLAN = YamlKind("plan", "collect", "prompts, candidates and providers")
MOST_TOLD = 5  # mistakes of one plan, in one error
Value = TypeVar("Value")
Kept = Literal["graded", "missing"]


@dataclass(frozen=True, kw_only=True)
class CollectionPlan:
    """A `CollectionPlan` is one collection.

    Attributes:
        prompts: a file, or several with what they hold (docs/prompt-sources.md). Paths are taken from the plan's folder.
        candidates: entries of a candidates' file (docs/own-bundle.md), each with `max_tokens` and, where they differ, `model`,
            `parameters`, `budget_usd`. `provider` names one of the plan's.
        prices_date: the day that their prices are of.
        providers: name -> who is asked.
        budget_usd: the most that all calls of one ledger may cost.
        graders: name -> how answers are graded (docs/grading.md); the first is taken where a prompt names none.
        samples: answers of each candidate to each prompt; their mean quality is the outcome.
        seed: of the order in which prompts are asked.
        acquisition: how a part of the table is bought, the cells that tell most; None: all of it.
        truncated: whether an answer that was cut at `max_tokens` is graded as it is, or has no outcome.
        refused: the same of an answer that its provider's filter refused.
        part_tokens: input tokens of each image and other part without text, at most; None: prompts with such parts are refused.
        ledgers: folders of other collections, from the plan's: what has an answer there is not asked again.
        out: the folder of the ledger and the tables, from the plan's. format: of the tables.
    """

    prompts: PromptsGiven
    candidates: tuple[Mapping[str, Any], ...]
    prices_date: str
    providers: Mapping[str, Provider]
    budget_usd: float
    graders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: int = 1
    seed: int = 0
    acquisition: AcquisitionPlan | None = None
    truncated: Kept = "missing"
    refused: Kept = "graded"
    part_tokens: int | None = None
    ledgers: tuple[str, ...] = ()
    out: str = "collected"
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    path: str = "plan.yaml"

    def __post_init__(self) -> None:
        if not self.candidates:
            raise InvalidInputError("candidates: expected at least one")
        if not is_day(self.prices_date):
            raise InvalidInputError(
                "prices_date: expected the day that the prices are of, such as '2026-11-24', quoted"
            )
        if not is_amount(self.budget_usd) or self.budget_usd > MOST_USD:
            raise InvalidInputError(f"budget_usd: expected USD, a number from 0 to {MOST_USD:g}")
        if not 1 <= self.samples <= 100:
            raise InvalidInputError("samples: expected 1 to 100")
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError("seed: expected a whole number from 0 to 2^63 - 1")
        if self.part_tokens is not None and not 0 <= self.part_tokens <= 10_000_000:
            raise InvalidInputError("part_tokens: expected 0 to 10000000 tokens")
        self._check_apart()
        names = [one.name for one in self.everyone]  # what is wrong with a candidate or a grader is told now
        if len(set(names)) < len(names):
            raise InvalidInputError("graders: expected a name of its own for each judge")

    def check_folder(self) -> None:
        """Refuse a folder with tables of another format beside which its own could not be read.

        Raises:
            InvalidInputError: names the file.
        """
        for ending in FORMATS:
            for file in (self.out_folder / f"{table}.{ending}" for table in (PROMPTS, OUTCOMES, SAMPLES)):
                if ending != self.format and file.exists():
                    raise InvalidInputError(
                        f"format: {file} is there, and tables are read in one format; move it away, or say `format: {ending}`"
                    )

    def _check_apart(self) -> None:
        """Refuse tables that would replace the prompts they are made of."""
        out = self.out_folder.resolve()
        written = {out, *(out / f"{table}.{ending}" for table in (PROMPTS, OUTCOMES, SAMPLES) for ending in FORMATS)}
        for source in prompt_sources(self.prompts, self.folder):
            place = Path(source.path).resolve()
            if place.is_dir() and place in out.parents:
                raise InvalidInputError(
                    f"out: lies in {told(place.name)}, of which `prompts` reads every file; name another folder"
                )
            if place in written:
                raise InvalidInputError(
                    f"out: its tables would replace {told(Path(source.path).name)}, which `prompts` names; name another folder"
                )

    def is_own(self, file: Path) -> bool:
        """Return whether a file is the plan, lies among its prompts, or is one of what it writes."""
        place, out = file.resolve(), self.out_folder.resolve()
        sources = [Path(source.path).resolve() for source in prompt_sources(self.prompts, self.folder)]
        return (
            place == Path(self.path).resolve()
            or place.parent == out
            or any(place == source or source in place.parents for source in sources)
        )

    @cached_property
    def asked(self) -> tuple[AskedCandidate, ...]:
        """The candidates, in the order of the plan."""
        return asked_candidates(self.candidates, self.prices_date, tuple(self.providers), Path(self.path))

    @cached_property
    def called(self) -> Mapping[str, str]:
        """What prompts and logs may call a candidate -> its name: that name, or a model that it alone has and no candidate is called by."""
        models = Counter(one.model for one in self.asked)
        alone = {one.model: one.name for one in self.asked if models[one.model] == 1}
        return {**alone, **{one.name: one.name for one in self.asked}}

    def by_candidate(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Return candidate -> what is given of it, under its name or its model; under both, its name's."""
        found = {self.called[name]: value for name, value in given.items() if name in self.called}
        return {**found, **{name: value for name, value in given.items() if self.called.get(name) == name}}

    @cached_property
    def made_graders(self) -> Mapping[str, PlanGrader]:
        """The graders, in the order of the plan."""
        return plan_graders(self.graders, [one.name for one in self.asked])

    @cached_property
    def judges(self) -> Mapping[str, AskedCandidate]:
        """Grader -> the judge that it asks, of those that ask one."""
        return {
            name: asked_judge(
                f"graders.{name}.judge", one.judge, self.prices_date, tuple(self.providers), Path(self.path)
            )
            for name, one in self.made_graders.items()
            if one.judge is not None
        }

    @property
    def everyone(self) -> tuple[AskedCandidate, ...]:
        """Whoever may be asked: the candidates, and the judges after them."""
        return (*self.asked, *self.judges.values())

    def counts_as_outcome(self, finish_reason: str | None) -> bool:
        """Return whether an answer that ended so is graded, by what the plan says of truncated and refused ones."""
        if finish_reason == "length":
            return self.truncated == "graded"
        return finish_reason != "content_filter" or self.refused == "graded"

    @property
    def folder(self) -> Path:
        """The folder of the plan, from which its paths are taken."""
        return Path(self.path).absolute().parent

    @property
    def out_folder(self) -> Path:
        """The folder of the ledger and the tables."""
        return self.folder / self.out

    @property
    def other_folders(self) -> tuple[Path, ...]:
        """The folders of the other collections."""
        return tuple(self.folder / one for one in self.ledgers)

    @property
    def sha256(self) -> str:
        """The digest of what the plan says, wherever it lies."""
        return sha256_hex(repr(replace(self, path="")).encode("utf-8", "backslashreplace"))


def read_plan(path: str | os.PathLike[str]) -> CollectionPlan:
    """Read a plan from a YAML file (extra `[collect]`).

    Raises:
        InvalidInputError: the file cannot be read, or a key is unknown, missing, doubled or wrong; file, line and key are named, and no
            value that may be a key.
    """
    file = as_path(path, "plan")
    document = read_yaml(file, PLAN)
    if "path" in document:
        mistakes = [Mistake("path", "path: is no key here")]
        raise InvalidInputError(told_at_lines(file, PLAN, mistakes, MOST_TOLD))
    made, mistakes = read_typed(CollectionPlan, {**document, "path": str(file)})
    if made is None:
        raise InvalidInputError(told_at_lines(file, PLAN, mistakes, MOST_TOLD))
    return made
