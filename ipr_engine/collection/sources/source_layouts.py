"""`recognised` tells the layout of a source by its first record; `require_heeded` refuses options that have no effect on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.collection.sources.openai_batches import is_batch_answer
from ipr_engine.collection.sources.prompt_source import LAYOUTS, PromptSource
from ipr_engine.data.tables import shown_cell
from ipr_engine.errors import InvalidInputError

_MOST_NAMED = 12  # fields of a record, in an error
# option -> the layouts that heed it; of others it has no effect
_HEEDED = {
    "columns": ("table",),
    "key": ("ipr-records",),
    "score": ("langfuse", "opentelemetry"),
    "scale": ("table", "langfuse", "opentelemetry"),
    "models": ("table", "litellm", "langfuse", "opentelemetry", "openai-batch"),
}


def recognised(record: Mapping[str, Any], source: PromptSource, where: str) -> str:
    """Return the layout of a source, by the fields of its first record.

    Raises:
        InvalidInputError: no layout that is known has such fields; tells them, and what is known.
    """
    names = set(record)
    if names & {"resourceSpans", "resourceLogs"}:
        return "opentelemetry"
    if {"schema_version", "crc32"} <= names:
        return "ipr-records"
    if "custom_id" in names and ("body" in names or is_batch_answer(record)):
        return "openai-batch"
    if "call_type" in names and names & {"response_cost", "spend"}:
        return "litellm"
    if names & {"traceId", "trace_id"} and names & {"input", "observationId", "observation_id"}:
        return "langfuse"
    if isinstance(record.get("observations"), list) and "input" in names:
        return "langfuse"
    if {"prompt", "messages"} & (names | set(source.columns)):
        return "table"
    found = ", ".join(map(shown_cell, sorted(record)[:_MOST_NAMED])) or "no field"
    more = f" and {len(record) - _MOST_NAMED} more" if len(record) > _MOST_NAMED else ""
    raise InvalidInputError(
        f"{where}: the layout is not recognised: it has {found}{more}; a table has prompt or messages (columns: {{prompt: THEIRS}} "
        f"names another column), or state the layout: {', '.join(LAYOUTS)}"
    )


def require_heeded(source: PromptSource, layout: str) -> None:
    """Raise InvalidInputError for an option that has no effect on sources of this layout."""
    plain = PromptSource(path=source.path)
    for name, layouts in _HEEDED.items():
        if getattr(source, name) != getattr(plain, name) and layout not in layouts:
            raise InvalidInputError(
                f"{name}: has no effect on {source.path}, of layout {layout}; it is for {', '.join(layouts)}"
            )
