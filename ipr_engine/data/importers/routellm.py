"""This file reads the responses and judgements of RouteLLM (Ong et al., arXiv 2406.18665), in its repository's routellm/evals.

Layout, from lm-sys/RouteLLM (routellm/evals/benchmarks.py and the files it reads):
    mmlu/responses/mmlu_<domain>.csv   prompt, one True/False column per model
    gsm8k/gsm8k_responses.csv          the same, and `<model>_response`
    mt_bench/question.jsonl            question_id, category, turns (FastChat's MT-bench questions)
    mt_bench/judgements.jsonl          question_id, model, turn, score 1 to 10 (-1: the judge gave none)
    <benchmark>/contaminated_prompts.jsonl   eval_prompt: left out there, so left out here
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipr_engine.data.importers.outcome_builder import SourceBuilder
from ipr_engine.data.outcomes import Outcomes
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError


def import_routellm(folder: Path, *, bad: BadRows | None = None) -> Outcomes:
    """Read the benchmarks that `folder` (routellm/evals) holds; every prompt is of split "test".

    MMLU and GSM8K count 0 or 1. MT-bench: the first turn is the prompt, as RouteLLM routes on it alone, and
    quality = (mean score of the turns - 1) / 9. There are no tokens and no costs.

    Args:
        bad: as for `import_wide`.
    """
    bad = BadRows() if bad is None else bad
    if not folder.is_dir():
        raise InvalidInputError(f"source: expected RouteLLM's folder routellm/evals, got {folder}")
    builder = SourceBuilder("routellm", bad)
    files = sorted((folder / "mmlu" / "responses").glob("mmlu_*.csv"))
    dropped = _contaminated(folder / "mmlu")
    for file in files:
        _add_answers(builder, read_table(file, bad), file.stem.removeprefix("mmlu_"), "mmlu", dropped)
    gsm8k = folder / "gsm8k" / "gsm8k_responses.csv"
    if gsm8k.is_file():
        _add_answers(builder, read_table(gsm8k, bad), "", "gsm8k", _contaminated(folder / "gsm8k"))
    judgements = folder / "mt_bench" / "judgements.jsonl"
    if judgements.is_file():
        _add_judgements(builder, folder / "mt_bench")
    if not files and not gsm8k.is_file() and not judgements.is_file():
        raise InvalidInputError(
            f"source: expected mmlu/responses/mmlu_*.csv, gsm8k/gsm8k_responses.csv or mt_bench/judgements.jsonl in {folder}"
        )
    return builder.build()


def _contaminated(folder: Path) -> set[str | None]:
    """Return the prompts that RouteLLM leaves out of a benchmark; none where it lists none."""
    file = folder / "contaminated_prompts.jsonl"
    if not file.is_file():
        return set()
    table = read_table(file)
    if not table.rows:
        return set()
    table.require(("eval_prompt",))
    return set(table.text("eval_prompt"))


def _add_answers(builder: SourceBuilder, table: Table, part: str, dataset: str, dropped: set[str | None]) -> None:
    """Add a table of one True/False column a model."""
    table.require(("prompt",))
    models = [name for name in table.columns if _is_model(name)]
    answers = [(model, table.values(model)) for model in models]
    for row, prompt in enumerate(table.text("prompt")):
        if prompt in dropped:
            continue
        where = table.where(row)
        prompt_id = ":".join(filter(None, ("routellm", dataset, part, str(row))))
        builder.add_prompt(prompt_id, prompt, where=where, split="test", dataset=dataset)
        for model, right in answers:
            builder.add_outcome(prompt_id, model, right[row], where=where)


def _is_model(column: str) -> bool:
    """Return whether a column is a model's: neither the prompt, nor responses, nor the index of pandas."""
    return column not in ("", "prompt") and not column.endswith("_response") and not column.startswith("Unnamed:")


def _add_judgements(builder: SourceBuilder, folder: Path) -> None:
    """Add MT-bench: quality of a model on a question is the mean score of its turns, brought from 1..10 to 0..1."""
    questions, judged = (read_table(folder / name, builder.bad) for name in ("question.jsonl", "judgements.jsonl"))
    questions.require(("question_id", "turns"))
    judged.require(("question_id", "model", "score"))
    dropped = _contaminated(folder)
    kept: dict[str | None, str] = {}
    for row, (number, turns) in enumerate(zip(questions.text("question_id"), questions.values("turns"), strict=True)):
        if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
            questions.complain(row, "turns", "expected a list of texts")
            continue
        if dropped.isdisjoint(turns[:2]):
            kept[number] = f"routellm:mt_bench:{number}"
            builder.add_prompt(kept[number], turns[0], where=questions.where(row), split="test", dataset="mt_bench")
    scores: dict[tuple[Any, str], list[float]] = {}
    values, missing = judged.numbers("score")
    models, numbers = judged.text("model"), judged.text("question_id")
    for row, (number, model) in enumerate(zip(numbers, models, strict=True)):
        if missing[row] or values[row] == -1 or number not in kept:
            continue
        if not 1 <= values[row] <= 10:
            judged.complain(row, "score", f"expected 1 to 10, or -1 where the judge gave none, got {values[row]:g}")
            continue
        scores.setdefault((number, model or ""), []).append(float(values[row]))
    for (number, model), given in scores.items():
        quality = (sum(given) / len(given) - 1) / 9  # scores of 1 to 10
        builder.add_outcome(kept[number], model, quality, where=f"{judged.name}, question {number}")
