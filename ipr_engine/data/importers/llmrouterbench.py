"""This file reads the result files of LLMRouterBench (arXiv 2601.07206), results/bench/<dataset>/<split>/<model>/<...>-<timestamp>.json.

Layout, from ynulihao/LLMRouterBench (data_collector/storage.py writes it, baselines/data_loader.py reads it): one object with
model_name, dataset_name, split, demo and records; a record has index, origin_query, prompt, prompt_tokens, completion_tokens,
cost (USD) and score. As there, demo files are skipped and of several files for one dataset, split and model the latest timestamp
in the name counts. Unlike there, a score of null is a missing outcome and not a zero.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ipr_engine.data.importers.outcome_builder import SourceBuilder
from ipr_engine.data.outcomes import Outcomes, question_key
from ipr_engine.data.tables import BadRows
from ipr_engine.errors import InvalidInputError

_TIMESTAMP = re.compile(r"(\d{8}_\d{6})\.json$")
_FIELDS = ("model_name", "dataset_name", "split", "records")


def import_llmrouterbench(folder: Path, *, bad: BadRows | None = None) -> Outcomes:
    """Read all result files below `folder`.

    A prompt is what the first model (by name) was sent; its key is the question's.

    Args:
        bad: as for `import_wide`; a row is a record.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"source: expected LLMRouterBench's folder results/bench, got {folder}")
    latest: dict[tuple[str, str, str], tuple[str, Path]] = {}
    for file in sorted(folder.rglob("*.json")):
        result = _read(file)
        if result.get("demo"):
            continue
        stamp = _TIMESTAMP.search(file.name)
        key = (str(result["dataset_name"]), str(result["split"]), str(result["model_name"]))
        # Timestamps have a fixed form: as texts they order by time.
        latest[key] = max(latest.get(key, ("", file)), (stamp[1] if stamp else "", file))
    if not latest:
        raise InvalidInputError(f"source: expected result files *.json below {folder}, found none")
    builder = SourceBuilder("llmrouterbench", bad)
    # prompt id -> its question, and where it was first read
    seen: dict[str, tuple[str, str]] = {}
    for (dataset, split, model), (_, file) in sorted(latest.items()):
        for row, record in enumerate(_read(file)["records"]):
            where = f"{file.name}, record {row + 1}"
            _add(builder, record, f"{dataset}:{split}", dataset, split, model, where, seen)
    return builder.build()


def _add(
    builder: SourceBuilder,
    record: Any,
    prefix: str,
    dataset: str,
    split: str,
    model: str,
    where: str,
    seen: dict[str, tuple[str, str]],
) -> None:
    """Add one record to the builder; a record of another question under a known id is bad."""
    if not isinstance(record, dict) or "index" not in record or "prompt" not in record:
        builder.bad.add(where, ": expected an object with 'index' and 'prompt'")
        return
    prompt_id, prompt = f"{prefix}:{record['index']}", _text(record["prompt"])
    question = _text(record.get("origin_query")) or prompt
    if prompt_id not in seen:
        seen[prompt_id] = question, where
        builder.add_prompt(prompt_id, prompt, where=where, split=split, dataset=dataset, key=question_key(question))
    elif seen[prompt_id][0] != question:
        builder.bad.add(
            where,
            f", column 'origin_query': expected the question that {seen[prompt_id][1]} asks under index {record['index']}, "
            "got another; the two files are of different versions of the data set",
        )
        return
    builder.add_outcome(
        prompt_id,
        model,
        record.get("score"),
        where=where,
        input_tokens=record.get("prompt_tokens"),
        output_tokens=record.get("completion_tokens"),
        cost_usd=record.get("cost"),
    )


def _read(file: Path) -> dict[str, Any]:
    """Read one result file; InvalidInputError where it is not of the layout."""
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{file.name}: expected a JSON object: {error}") from None
    absent = [name for name in _FIELDS if not isinstance(result, dict) or name not in result]
    if absent or not isinstance(result["records"], list):
        raise InvalidInputError(f"{file.name}: expected an object with {', '.join(_FIELDS)}; is it a result file?")
    return result


def _text(value: Any) -> str:
    """Return a text as it is; lists and objects (chat messages, choices) as JSON, as LLMRouterBench's own loader does."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)
