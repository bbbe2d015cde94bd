"""`import_wide` reads a wide table: one row a prompt, columns per model; CSV, JSONL or Parquet.

Columns: prompt; optionally prompt_id (else row numbers), split, dataset, question_key, task; per model `<model>`
or `<model>|quality`, and optionally `<model>|input_tokens`, `<model>|output_tokens`, `<model>|cost_usd`. Quality is a number in [0, 1],
or True or False; an empty cell is a missing outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ipr_engine.data.importers.outcome_builder import SourceBuilder
from ipr_engine.data.outcomes import MEASURES, Outcomes
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError

RESERVED = ("prompt_id", "prompt", "split", "dataset", "question_key", "task")


def import_wide(
    path: Path,
    *,
    models: Sequence[str] | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    bad: BadRows | None = None,
) -> Outcomes:
    """Read a wide table into `Outcomes`.

    Args:
        models: its candidates; None takes the columns `<model>|quality` or, without any, every column that is none of the above.
        columns: {name above: the table's own}, for those that differ.
        bad: says whether bad rows are left out, and collects them; None refuses them, all in one error.
    """
    bad = BadRows() if bad is None else bad
    table = read_table(path, bad).renamed(columns)
    table.bad = bad
    table.require(("prompt",), hint="; take one of another name with --column prompt=THEIRS (columns=)")
    quality = _quality_columns(table, models)
    builder = SourceBuilder(path.stem, bad, whole_rows=True)
    cells = {name: table.values(name) for name in table.columns}
    optional = [table.text(name) if name in cells else [None] * table.rows for name in RESERVED]
    measured = [
        (model, cells[column], {m: cells[f"{model}|{m}"] for m in MEASURES[1:] if f"{model}|{m}" in cells})
        for model, column in quality.items()
    ]
    # Row numbers with leading zeros: ids sort as the rows stand.
    width = len(str(table.rows))
    for row, (given_id, prompt, split, dataset, key, task) in enumerate(zip(*optional, strict=True)):
        where = table.where(row)
        prompt_id = f"{path.stem}:{row + 1:0{width}d}" if "prompt_id" not in cells else given_id or ""
        builder.add_prompt(prompt_id, prompt, where=where, split=split, dataset=dataset, key=key, task=task)
        for model, score, measures in measured:
            rest = {name: values[row] for name, values in measures.items()}
            builder.add_outcome(prompt_id, model, score[row], where=where, **rest)
    return builder.build()


def _quality_columns(table: Table, models: Sequence[str] | None) -> dict[str, str]:
    """Return model -> the column of its quality."""
    ending = "|quality"
    marked = {name.removesuffix(ending): name for name in table.columns if name.endswith(ending)}
    bare = {name: name for name in table.columns if name and "|" not in name and name not in RESERVED}
    if models is None:
        # Where some columns are marked "|quality" the bare ones are somebody's other columns.
        chosen = marked or bare
        if not chosen:
            raise InvalidInputError(f"{table.name}: expected a column per model, got {', '.join(table.columns)}")
        return chosen
    for model in models:
        if model not in marked and model not in bare:
            raise InvalidInputError(f"{table.name}: expected column {model!r} or {model + ending!r}, found neither")
    return {model: marked.get(model, model) for model in models}
