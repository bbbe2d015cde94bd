"""This file reads RouterBench (Hu et al., arXiv 2403.12031), one row a prompt, as CSV or Parquet.

Layout, from the dataset card and the header of public conversions of routerbench_0shot: sample_id, prompt, eval_name, one score
column per model under its name, `<model>|model_response`, `<model>|total_cost` (USD), oracle_model_to_route_to. `prompt` is a
Python list of turns written as text. The published file is a pickle; loading one runs code of its author, so it is
refused: convert it where that does no harm.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from ipr_engine.data.importers.outcome_builder import SourceBuilder
from ipr_engine.data.outcomes import Outcomes
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows
from ipr_engine.errors import InvalidInputError

COST = "|total_cost"


def import_routerbench(
    path: Path, *, columns: Mapping[str, str] = MappingProxyType({}), bad: BadRows | None = None
) -> Outcomes:
    """Read the wide table: score is quality, total_cost is cost_usd, eval_name is dataset; it names no split and no tokens.

    Args:
        columns, bad: as for `import_wide`.
    """
    bad = BadRows() if bad is None else bad
    if path.suffix.lower() in (".pkl", ".pickle"):
        raise InvalidInputError(
            f"{path.name}: a pickle runs code when it is loaded and is refused; convert it to CSV or Parquet in a sandbox "
            "(pandas.read_pickle(...).to_csv(..., index=False))"
        )
    table = read_table(path, bad).renamed(columns)
    table.bad = bad
    table.require(("sample_id", "prompt", "eval_name"))
    models = [name.removesuffix(COST) for name in table.columns if name.endswith(COST)]
    if not models:
        raise InvalidInputError(
            f"{table.name}: expected columns '<model>{COST}', found none; is it RouterBench's table?"
        )
    table.require(models)
    builder = SourceBuilder(path.stem, bad, whole_rows=True)
    ids, prompts, datasets = (table.text(name) for name in ("sample_id", "prompt", "eval_name"))
    measured = [(model, table.values(model), table.values(f"{model}{COST}")) for model in models]
    for row, (sample, prompt, dataset) in enumerate(zip(ids, prompts, datasets, strict=True)):
        where = table.where(row)
        builder.add_prompt(sample or "", _turns(prompt), where=where, dataset=dataset)
        for model, scores, costs in measured:
            builder.add_outcome(sample or "", model, scores[row], where=where, cost_usd=costs[row])
    return builder.build()


def _turns(prompt: str | None) -> str | None:
    """Return the turns joined by blank lines, as the encoder joins chat messages; any other text as it is."""
    if prompt is None or not prompt.startswith("["):
        return prompt
    try:
        turns = ast.literal_eval(prompt)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return prompt  # a prompt that merely begins with a bracket
    if isinstance(turns, list) and turns and all(isinstance(turn, str) for turn in turns):
        return "\n\n".join(turns)
    return prompt
