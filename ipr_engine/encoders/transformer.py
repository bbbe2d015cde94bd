"""Every transformer tier is a `TransformerEncoder`: it has text to ids, truncation, bills, batches of like length, and adds `_embed`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import WordPiece
from ipr_engine.encoders.base import Encoded, as_prompt_list
from ipr_engine.encoders.tokenizer import LibraryTokenizer, WordPieceTokenizer, read_tokenizer
from ipr_engine.encoders.transformer_files import TransformerSpec
from ipr_engine.errors import InvalidInputError


class TransformerEncoder:
    """A `TransformerEncoder` is a frozen transformer (sentence-transformers' Transformer, Pooling, Normalize) on one tier.

    ids = special tokens around those of the prompt, in which literal `[SEP]`-like text is text. No prefix is put before a
    prompt. Of a prompt longer than max_tokens the first and last half are kept, each cut between words. A prompt without one
    token gives x = 0. Safe to share between threads.

    Attributes:
        spec: the model. dim: of an embedding; set by the tier.
        max_tokens: the most ids the transformer sees, special ones included.
        batch: the most prompts that pass through it together; they are taken in the order of their length.
        identity: names the model, not the tier. arithmetic: the dtype in it, None for float32.
        tokenizer: makes the ids; tokenizer.kind is "wordpiece" (C++) or "tokenizers" (the library).
        tier: its name in encoders.tiers. native: None: these tiers need Python.
        chosen: how tier "auto" came to this one, where it measured; a part of `summary`.
    """

    tier: str
    native = None
    chosen: str | None = None
    dim: int

    def __init__(
        self,
        spec: TransformerSpec,
        *,
        max_tokens: int,
        batch: int,
        dtype: str | None = None,
        tokenizer: WordPieceTokenizer | LibraryTokenizer | None = None,
    ) -> None:
        for name, number in (("max_tokens", max_tokens), ("batch", batch)):
            if type(number) is not int or number < 1:
                raise InvalidInputError(f"{name}: expected an int >= 1, got {number!r}")
        special = len(spec.before) + len(spec.after)
        if max_tokens <= special:
            raise InvalidInputError(f"max_tokens: expected more than the {special} special tokens, got {max_tokens}")
        if spec.positions is not None and max_tokens > spec.positions:
            raise InvalidInputError(
                f"max_tokens: expected at most the model's {spec.positions} positions, got {max_tokens}"
            )
        self.spec = spec
        self.max_tokens = max_tokens
        self.batch = batch
        self.tokenizer = read_tokenizer(spec.tokenizer) if tokenizer is None else tokenizer
        self.arithmetic = dtype
        self.identity = spec.identity(max_tokens, dtype=dtype)
        self._before = np.array(spec.before, dtype=np.int64)
        self._after = np.array(spec.after, dtype=np.int64)

    @property
    def pooling(self) -> str:
        return self.spec.pooling

    @property
    def normalize(self) -> bool:
        return self.spec.normalize

    @property
    def pad_id(self) -> int:
        return self.spec.pad_id

    @property
    def wordpiece(self) -> WordPiece | None:
        """The tokenizer in C++; None where a library makes the ids."""
        return self.tokenizer.native if isinstance(self.tokenizer, WordPieceTokenizer) else None

    @property
    def special_ids(self) -> tuple[list[int], list[int]]:
        """The ids before and after those of a prompt."""
        return list(self.spec.before), list(self.spec.after)

    @property
    def summary(self) -> str:
        """A few words, see `Encoder.summary`."""
        raise NotImplementedError

    def told(self, summary: str) -> str:
        """Return a tier's summary with what is known of its choice."""
        return summary if self.chosen is None else f"{summary}, {self.chosen}"

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt; see `Encoder.encode`. The class of the tier bounds the effect of batch mates."""
        ids, billed, truncated = self.read(prompts)
        return Encoded(self.embed(ids), billed, truncated)

    def read(self, prompts: Sequence[str]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[np.bool_]]:
        """Return ids (none of a prompt without a token), billed_tokens and truncated: `encode` up to the embedding."""
        prompts = as_prompt_list(prompts)
        billed = np.zeros(len(prompts), dtype=np.int64)
        truncated = np.zeros(len(prompts), dtype=np.bool_)
        ids = []
        for row, prompt in enumerate(prompts):
            own, billed[row], truncated[row] = self._ids(prompt, row)
            ids.append(own if billed[row] else own[:0])
        return ids, billed, truncated

    def embed(self, ids: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return the embeddings (rows, dim) of sequences as `read` gives them; 0 where one is empty."""
        x = np.zeros((len(ids), self.dim), dtype=np.float32)
        longest_first = sorted((row for row in range(len(ids)) if len(ids[row])), key=lambda row: -len(ids[row]))
        for rows in self._groups(longest_first, [len(ids[row]) for row in longest_first]):
            x[rows] = self._embed([ids[row] for row in rows])
        return x

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text as `billed_tokens` counts them."""
        return self.tokenizer.count(text)

    def ids(self, prompts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return the ids that the transformer sees of each prompt, special ones included, long prompts cut: (1..max_tokens,) each."""
        return [self._ids(prompt, row)[0] for row, prompt in enumerate(as_prompt_list(prompts))]

    def _ids(self, prompt: str, row: int) -> tuple[NDArray[np.int64], int, bool]:
        """Return the ids that the transformer sees (at most max_tokens,), the count of the prompt's own, and whether some were cut."""
        try:
            own, starts = self.tokenizer.encode(prompt)
        except InvalidInputError as error:
            raise InvalidInputError(str(error).replace("text", f"prompts[{row}]", 1)) from None
        billed, room = len(own), self.max_tokens - len(self._before) - len(self._after)
        if billed > room:
            head, tail = cut_between_words(starts, room)
            own = np.concatenate([own[:head], own[tail:]])
        return np.concatenate([self._before, own.astype(np.int64), self._after]), billed, billed > room

    def _groups(self, rows: list[int], lengths: list[int]) -> list[list[int]]:
        """Return the rows that pass together; rows and their lengths come longest first. A tier with buckets has its own way."""
        return [rows[begin : begin + self.batch] for begin in range(0, len(rows), self.batch)]

    def _embed(self, ids: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Return (rows, dim) embeddings of sequences of 1 to max_tokens ids each, longest first."""
        raise NotImplementedError


def padded(ids: list[NDArray[np.int64]], tokens: int, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows filled up on the right, and their mask of 0 and 1, both (rows, tokens) int64."""
    filled = np.full((len(ids), tokens), pad_id, dtype=np.int64)
    for row, own in enumerate(ids):
        filled[row, : len(own)] = own
    lengths = np.array([len(own) for own in ids])
    return filled, (np.arange(tokens) < lengths[:, None]).astype(np.int64)


def cut_between_words(starts: NDArray[np.bool_], max_tokens: int) -> tuple[int, int]:
    """Return the tokens to keep, as (head, tail): [0, head) and [tail, tokens) (docs/decide.md).

    Half of max_tokens (the head rounded up) from each end, less what it takes to end the head and start the tail between
    words. A half that one word alone overfills is cut inside that word.

    Args:
        starts: (tokens,) whether each token is the first of its word; tokens > max_tokens >= 1.
    """
    # The definition that csrc/src/static_encoder.cpp implements, for the tiers in Python.
    room_head, room_tail = max_tokens - max_tokens // 2, max_tokens // 2
    ends = np.flatnonzero(starts[1 : room_head + 1])  # a start at k + 1 lets the head end there
    first = len(starts) - room_tail
    begins = np.flatnonzero(starts[first:])
    head = int(ends[-1]) + 1 if len(ends) else room_head
    tail = first + int(begins[0]) if len(begins) else first
    return head, tail
