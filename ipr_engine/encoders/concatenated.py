"""A `ConcatenatedEncoder` joins several encoders into one, their embeddings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from ipr_engine._C import StaticEncoder as NativeStatic
from ipr_engine.bundle import concatenated_identity
from ipr_engine.bundle.conversation import RECENCY
from ipr_engine.encoders.base import Encoded, Encoder, as_prompt_list, record_graphs
from ipr_engine.encoders.conversations import TurnEncoder, newest_told
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.task_columns import TaskColumns
from ipr_engine.errors import InvalidInputError


class ConcatenatedEncoder:
    """A `ConcatenatedEncoder` puts embeddings side by side: x = [first.x, second.x, ...], none rescaled. The first one's count is billed.

    Attributes:
        encoders: the parts, in the order of their columns.
        dim: the sum of theirs. max_tokens: the largest of theirs; `truncated` says that at least one part left some out.
        identity: sha256 over the parts' identities, in order. tier: of its transformers.
        native: the C++ object of a table in C++ and tasks or surface features behind it, which one call makes; None of other parts,
            each of which is called from Python.
        surface_dim: how many of the last columns are surface features, 0 without. head_dim: how many before these and the tasks are a
            head view.
        task_columns: task -> its column, before the surface features; empty without tasks.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        if len(encoders) < 2:
            raise InvalidInputError(f"encoders: expected at least two, got {len(encoders)}")
        order = [_place(encoder) for encoder in encoders]
        behind = [place for place in order if place]
        if order != sorted(order) or len(set(behind)) < len(behind) or order[0]:
            raise InvalidInputError(
                "encoders: tasks and surface features count no tokens; put every embedding first, then the tasks, then surface features"
            )
        embeddings = encoders[: len(order) - len(behind)]
        if any(getattr(encoder, "head_dim", 0) for encoder in embeddings[:-1]):
            raise InvalidInputError(
                "encoders: support measures the columns before a head view; put its table behind every embedding"
            )
        self.encoders = tuple(encoders)
        self.dim = sum(encoder.dim for encoder in encoders)
        self.max_tokens = max(encoder.max_tokens for encoder in encoders)
        self.identity = concatenated_identity([encoder.identity for encoder in encoders])
        self.surface_dim = encoders[-1].dim if isinstance(encoders[-1], SurfaceEncoder) else 0
        self.head_dim = int(getattr(embeddings[-1], "head_dim", 0))
        tasks = [encoder for encoder in encoders if isinstance(encoder, TaskColumns)]
        names = tasks[0].names if tasks else ()
        first = self.dim - self.surface_dim - len(names)
        self.task_columns = MappingProxyType({name: first + at for at, name in enumerate(names)})
        self.native = _one_call(self.encoders, len(names))
        self.tier = "+".join(encoder.tier for encoder in encoders if encoder.tier is not None) or None

    @property
    def summary(self) -> str:
        """The parts' summaries."""
        return " + ".join(encoder.summary for encoder in self.encoders)

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt with every part; see `Encoder.encode`."""
        prompts = as_prompt_list(prompts)
        if self.native is not None:
            return Encoded(*self.native.encode(prompts))
        return self.join([encoder.encode(prompts) for encoder in self.encoders])

    def encode_turns(self, turns: Sequence[tuple[str, ...]]) -> Encoded:
        """Embed each conversation, its turns weighed by every table; see `TurnEncoder.encode_turns`.

        Surface features are those of the newest turn that has a token.

        Raises:
            InvalidInputError: a part is a transformer.
        """
        if self.native is not None:
            return Encoded(*self.native.encode_turns(list(turns), RECENCY))
        newest = [newest_told(self, of) or of[-1] for of in turns]
        parts = []
        for encoder in self.encoders:
            if isinstance(encoder, TurnEncoder):
                parts.append(encoder.encode_turns(turns))
            elif _place(encoder):
                parts.append(encoder.encode(newest))
            else:
                raise InvalidInputError(
                    f"conversation: recency is of tables, and {encoder.summary} is none; use last or all"
                )
        return self.join(parts)

    def join(self, parts: Sequence[Encoded]) -> Encoded:
        """Return the result of `encode`, from the results of each part for the same prompts."""
        return Encoded(
            np.concatenate([part.x for part in parts], axis=1),
            parts[0].billed_tokens,
            np.logical_or.reduce([part.truncated for part in parts]),
        )

    def record(self) -> None:
        """Let the parts that have graphs record them."""
        record_graphs(self.encoders)

    def count_tokens(self, text: str) -> int:
        """Return the first part's count."""
        return self.encoders[0].count_tokens(text)

    def __repr__(self) -> str:
        return f"ConcatenatedEncoder({', '.join(map(repr, self.encoders))})"


def _place(encoder: Encoder) -> int:
    """Return where a part stands: an embedding first, 0, then tasks, then surface features."""
    return 1 if isinstance(encoder, TaskColumns) else 2 if isinstance(encoder, SurfaceEncoder) else 0


def _one_call(encoders: Sequence[Encoder], tasks: int) -> NativeStatic | None:
    """Return what makes the whole row in C++, where the parts are a table, and tasks or surface features."""
    table, *others = encoders
    if not isinstance(table, StaticEncoder) or not all(map(_place, others)):
        return None
    surface = next((encoder.surface for encoder in others if isinstance(encoder, SurfaceEncoder)), None)
    return table.native_with(surface, tasks)
