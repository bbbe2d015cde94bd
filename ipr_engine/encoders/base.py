"""`Encoder` is the protocol of a prompt encoder, `Encoded` its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import StaticEncoder as NativeStatic
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.parsed import Needs


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """An `Encoded` is the result of `Encoder.encode`; row i belongs to prompt i, and `encoded[2:5]` is the result of those rows.

    A decision reads nothing else of the prompts. tokens_out and extra_usd are no part of it: they are values for the
    candidates of one bundle, and embeddings outlive a swap.

    Attributes:
        x: (batch, dim) float32, the embeddings; all 0 where a prompt has no token that can be embedded.
        billed_tokens: (batch,) int64, tokens of the whole prompt, unknown ones included, before any cut, without special tokens.
        truncated: (batch,) bool, whether the prompt is longer than `max_tokens` allows, so that x leaves some of it out.
        encoder: identity of the encoder that made x, where known: heads on another one refuse it.
        needs: the demands of each request on a candidate besides reading its text, None for none; None where not known of any.
        errors: row -> why its prompt could not be encoded; x of the row is NaN, its bill 0.
        terms: (batch, terms) float64, counts of each request's texts (docs/tokens.md), NaN where its bill was given; None where
            not known.
        tasks: what the caller says each prompt is for, which x has in its columns of tasks; None where nothing is said of any.
    """

    x: NDArray[np.float32]
    billed_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    encoder: str | None = None
    needs: tuple[Needs | None, ...] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)
    terms: NDArray[np.float64] | None = None
    tasks: tuple[AskedTask | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | list[int] | NDArray[np.integer]) -> Encoded:
        x, billed, truncated = np.ascontiguousarray(self.x[rows]), self.billed_tokens[rows], self.truncated[rows]
        terms = None if self.terms is None else np.ascontiguousarray(self.terms[rows])
        if self.needs is None and not self.errors and self.tasks is None:
            return Encoded(x, billed, truncated, self.encoder, terms=terms)
        taken = np.arange(len(self))[rows].tolist()  # negative and sliced rows as plain numbers
        needs = None if self.needs is None else tuple(self.needs[row] for row in taken)
        errors = {at: self.errors[row] for at, row in enumerate(taken) if row in self.errors}
        tasks = None if self.tasks is None else tuple(self.tasks[row] for row in taken)
        return Encoded(x, billed, truncated, self.encoder, needs, errors, terms, tasks)


class Encoder(Protocol):
    """An `Encoder` is a frozen text encoder, prompt -> `dim` floats. Safe to share between threads."""

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def identity(self) -> str:
        """The sha256 hex of everything that decides x (`ipr_engine.bundle.encoder_identity`); heads name their encoder by it."""
        ...

    @property
    def summary(self) -> str:
        """A few words for `repr(engine)`: tier, dimensions, what encodes."""
        ...

    @property
    def tier(self) -> str | None:
        """The tier that runs a transformer (`encoders.tiers`), those of parts joined by "+"; None where nothing but a table is read.

        A record tells it: tiers of one identity differ in the last bits of x.
        """
        ...

    @property
    def native(self) -> NativeStatic | None:
        """The C++ object that encodes text on its own, so that one call routes; None for a tier that needs Python."""
        ...

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt. The row of a prompt does not depend on the others: not one bit of it in the static tier; a
        transformer tier pads a batch to one length, which reorders sums, and states a bound on the difference.

        Raises:
            InvalidInputError: a prompt is not a str, or holds a lone surrogate.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text as `billed_tokens` counts them, without embedding it."""
        ...


@runtime_checkable
class RecordingEncoder(Protocol):
    """A `RecordingEncoder` is an encoder that records its work (CUDA graphs) before it first encodes."""

    def record(self) -> None:
        """Record the work of this encoder, unless that is done."""


def record_graphs(encoders: Iterable[Encoder]) -> None:
    """Let each RecordingEncoder record: a load takes the time, not the first request."""
    for encoder in encoders:
        if isinstance(encoder, RecordingEncoder):
            encoder.record()


def as_prompt_list(prompts: Any) -> list[str]:
    """Return the prompts as a list; InvalidInputError for a lone str, or a value that cannot be iterated."""
    if isinstance(prompts, str):
        raise InvalidInputError("prompts: expected a sequence of str, got one str; pass [prompt]")
    if not isinstance(prompts, Iterable):
        raise InvalidInputError(f"prompts: expected a sequence of str, got {type(prompts).__name__}")
    return list(prompts)
