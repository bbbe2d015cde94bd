"""What a prompt encoder is, and what names it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Encoded(NamedTuple):
    """What `Encoder.encode` returns; row i belongs to prompt i.

    x: (batch, dim) float32, the embeddings; all 0 where a prompt has no known token.
    billed_tokens: (batch,) int64, tokens of the whole prompt, unknown ones included, before any cut.
    truncated: (batch,) bool, whether more than `max_tokens` tokens were known, so that x leaves some out.
    """

    x: NDArray[np.float32]
    billed_tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class Encoder(Protocol):
    """A frozen text encoder, prompt -> `dim` floats. Safe to share between threads."""

    @property
    def dim(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def identity(self) -> str:
        """sha256 hex of all that decides x (`encoder_identity`); heads name the encoder they were fitted on by it."""
        ...

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt. The row of a prompt does not depend on the others.

        Raises:
            InvalidInputError: a prompt is not a str, or holds a lone surrogate.
        """
        ...

    def count_tokens(self, text: str) -> int:
        """The tokens of a text as `billed_tokens` counts them, without embedding it."""
        ...


def encoder_identity(*, kind: str, files: Mapping[str, str], pooling: str, normalize: bool, max_tokens: int) -> str:
    """The identity of an encoder: sha256 over canonical JSON of what decides its output (docs/design.md, section 6).

    Args:
        kind: the tier, "static".
        files: role ("table", "tokenizer", "config") -> sha256 hex of that file's bytes.
    """
    fields = {
        "files": dict(files),
        "kind": kind,
        "max_tokens": max_tokens,
        "normalize": normalize,
        "pooling": pooling,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
