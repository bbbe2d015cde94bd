"""A `ParsedRequest` is an LLM request taken apart: its texts, and what it needs of whoever answers it (`Needs`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine._C import plain_request
from ipr_engine._read_only import read_only
from ipr_engine._validate import MOST_TOKENS, lone_surrogate
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.objects import kind_of

BYTES_PER_TOKEN = 8  # as kBytesPerToken of csrc/include/ipr/router.h
NOTHING: Mapping[str, str] = read_only({})

ASSUMED_TOKENS = 1000  # of each part that cannot be counted, where its operator says nothing


class Needs(NamedTuple):
    """A `Needs` says what a request asks of whoever answers it, besides reading its text.

    Attributes:
        features: feature -> the first part of the request that needs it.
        max_output_tokens: most output tokens that the request allows; None where it does not say.
        answers: how many answers it asks for; each is billed.
        images: how many it holds.
    """

    features: Mapping[str, str] = NOTHING
    max_output_tokens: int | None = None
    answers: int = 1
    images: int = 0


@dataclass(frozen=True)
class ParsedRequest:
    """A `ParsedRequest` is what `parse_request` returns; `Engine.route` and all like it take it in place of the request.

    Attributes:
        encoded: the text that is encoded, where a bundle does not tell turns apart: all texts of the user in order, joined by blank
            lines. Where the request has none, every other text of the conversation; "" where it has no text at all.
        billed_only: every other text: system, assistant, tool calls and results, reasoning, tool definitions, schemas.
        uncountable: kinds of the parts whose tokens cannot be counted here, such as "image_url".
        features: feature that a candidate must have -> the first part that needs it. Features: "tools", "vision", "audio",
            "files", "video".
        max_output_tokens: most output tokens that the request allows, None where it does not say.
        answers: how many answers it asks for, OpenAI's `n`; each of them is billed.
        images: how many it holds, for prices per image.
        turns: of several messages of the user the text of each, oldest first, which `encoded` joins; empty where it is one, or none. A
            bundle's `conversation` says what of them is encoded.
    """

    encoded: str
    billed_only: tuple[str, ...] = ()
    uncountable: tuple[str, ...] = ()
    features: Mapping[str, str] = field(default_factory=dict, hash=False)
    max_output_tokens: int | None = None
    answers: int = 1
    images: int = 0
    turns: tuple[str, ...] = ()

    @classmethod
    def of_text(cls, text: str, where: str = "prompt") -> ParsedRequest:
        """Take a plain text as the whole request: what `parse_request` makes of it."""
        made = plain_request(text, cls, MOST_TOKENS) if type(text) is str else None
        return cls(checked_text(text, where)) if made is None else made

    def __repr__(self) -> str:
        """Show sizes alone: what is printed into a log shall hold no text of a prompt."""
        return (
            f"ParsedRequest(encoded={len(self.encoded)} characters, billed_only={sum(map(len, self.billed_only))} characters, "
            f"uncountable={self.uncountable!r}, features={dict(self.features)!r}, max_output_tokens={self.max_output_tokens!r}, "
            f"answers={self.answers!r}, images={self.images!r}, turns={len(self.turns) or 1})"
        )

    @property
    def all_text(self) -> bool:
        """Return whether texts are all that the request is billed for."""
        return not self.uncountable and not self.images

    @property
    def needs(self) -> Needs | None:
        """Return what the request asks of a candidate; None where any candidate may answer."""
        if not self.features and self.max_output_tokens is None and self.answers == 1 and self.images == 0:
            return None
        return Needs(self.features, self.max_output_tokens, self.answers, self.images)


def checked_text(value: object, where: str) -> str:
    """Return the text; InvalidInputError for anything else, and for one that has no UTF-8 form."""
    if not isinstance(value, str):
        raise InvalidInputError(f"{where}: expected a string, got {kind_of(value)}")
    if not value.isascii() and lone_surrogate(value) is not None:
        raise InvalidInputError(
            f"{where}: expected Unicode text, got a lone surrogate; decode with errors='replace', not 'surrogateescape'"
        )
    return value


def bill_floor(text: str, tokens: int) -> int:
    """Return at least a token per 8 bytes: a very long word (base64, say) is one token to WordPiece, but not to any LLM."""
    return max(tokens, -(-len(text.encode()) // BYTES_PER_TOKEN))  # rounded up


def bill_floors(texts: Sequence[str], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (texts,) the bill of each text alone: `bill_floor` of the tokens counted in it."""
    return np.array([bill_floor(text, n) for text, n in zip(texts, counts.tolist(), strict=True)], np.int64)
