"""A `PromptSource` says where prompts are, as a plan's `prompts:` states it: a file or folder, its layout, and what its columns mean."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ipr_engine._files import as_path
from ipr_engine._read_only import read_only
from ipr_engine._validate import number, shown, shown_safely
from ipr_engine.bundle.task_names import task_problem
from ipr_engine.documents.typed_document import take_plain
from ipr_engine.errors import InvalidInputError

Layout = Literal["auto", "table", "litellm", "langfuse", "opentelemetry", "openai-batch", "ipr-records"]
LAYOUTS = tuple(name for name in get_args(Layout) if name != "auto")


@dataclass(frozen=True, kw_only=True)
class PromptSource:
    """A `PromptSource` is one file of prompts, or a folder of such files; `documents.read_typed` reads it.

    Attributes:
        path: the file (.jsonl, .ndjson, .json or .csv, also with .gz, or .parquet), or a folder, of which every such file is read.
        layout: how it is laid out; "auto" looks at the first record.
        columns: {our name: the table's own}, for a table whose names differ.
        models: {the log's name of a model: the candidate's}, for those that differ.
        dataset, split, task: of every prompt that states none.
        key: the file of the owner's key, which opens records of ours.
        score: the name of the score that is the quality, in logs that hold several.
        scale: (lowest, highest) of the scores or labels, which become (value - lowest) / (highest - lowest).
        skip_bad_rows: leave bad rows out and count them; else they are refused.
    """

    path: str
    layout: Layout = "auto"
    columns: Mapping[str, str] = field(default_factory=lambda: read_only({}))
    models: Mapping[str, str] = field(default_factory=lambda: read_only({}))
    dataset: str | None = None
    split: str | None = None
    task: str | None = None
    key: str | None = None
    score: str | None = None
    scale: tuple[float, ...] = (0.0, 1.0)
    skip_bad_rows: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InvalidInputError: names the field.
        """
        take_plain(self)
        as_path(self.path, "path")
        scale = tuple(number("scale", value) for value in self.scale)
        if len(scale) != 2 or not scale[0] < scale[1]:
            raise InvalidInputError(
                f"scale: expected the lowest and the highest score, such as [1, 5], got {shown(list(scale))}"
            )
        problem = None if self.task is None else task_problem(self.task)
        if problem is not None:
            raise InvalidInputError(f"task: expected {problem}, got {shown_safely(self.task)}")
        object.__setattr__(self, "scale", scale)


PromptsGiven: TypeAlias = str | PromptSource | tuple[PromptSource, ...]
"""What `prompts:` of a plan may be: a path, one source, or a list of sources."""
OnePrompts: TypeAlias = str | os.PathLike[str] | PromptSource
PromptsArgument: TypeAlias = OnePrompts | Sequence[OnePrompts]
"""What Python callers may give: the same, and paths in a list."""


def prompt_sources(prompts: PromptsArgument, folder: str | os.PathLike[str] | None = None) -> tuple[PromptSource, ...]:
    """Return what `prompts:` states as sources.

    Args:
        folder: the one that relative paths of prompts and keys are taken from; None is the current one.
    Raises:
        InvalidInputError: there is no source, or something else stands among them.
    """
    given = [prompts] if isinstance(prompts, (str, os.PathLike, PromptSource)) else list(prompts)
    sources = [PromptSource(path=os.fspath(one)) if isinstance(one, (str, os.PathLike)) else one for one in given]
    if not sources or not all(isinstance(source, PromptSource) for source in sources):
        raise InvalidInputError("prompts: expected a path, or a list of sources such as {path: prompts.jsonl}")
    if folder is None:
        return tuple(sources)
    return tuple(
        replace(
            source,
            path=str(Path(folder) / source.path),
            key=None if source.key is None else str(Path(folder) / source.key),
        )
        for source in sources
    )
