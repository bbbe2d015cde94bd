"""A view says what of a prompt an estimator sees. It is fitted on nothing but the prompt: encoders stay frozen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.data import EmbeddingCache
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.registry import make_encoder, open_encoder
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

VIEWS = ("static", "transformer", "both", "static + text", "transformer + text", "both + text")

_DIGIT, _OPERATOR, _CODE, _OPTION, _QUESTION = (
    re.compile(pattern)
    for pattern in (
        r"\d",
        r"[=+*/^<>\\]",
        r"[{}\[\]();_`]",
        r"(?m)^\s*\(?[A-J][.):]",
        r"\?|\b(?:what|which|who|how|why)\b",
    )
)


class Views:
    """`Views` gives embeddings of prompts by the name of a view; transformers' are kept in a cache folder.

    Args:
        transformer: a sentence-transformers folder, None where no view asks for it.
        cache: a folder for embeddings, None to keep none.
    """

    def __init__(self, transformer: Path | None = None, cache: Path | None = None) -> None:
        bundle = Bundle.load(DEFAULT_BUNDLE)
        self.static: Encoder = make_encoder(bundle, bundle.quality_heads.encoder)
        self.transformer = None if transformer is None else open_encoder(transformer)
        self._cache = None if cache is None else EmbeddingCache(cache)

    def see(self, view: str, prompts: Sequence[str]) -> Array:
        """Return the view of these prompts, (prompts, dim) float64.

        Raises:
            InvalidInputError: an unknown view, or one of a transformer and none was given.
        """
        if view not in VIEWS:
            raise InvalidInputError(f"view: expected one of {', '.join(VIEWS)}, got {view!r}")
        encoder, _, more = view.partition(" + ")
        parts = []
        if encoder in ("static", "both"):
            parts.append(np.asarray(self.static.encode(list(prompts)).x, np.float64))
        if encoder in ("transformer", "both"):
            parts.append(np.asarray(self.transform(prompts).x, np.float64))
        if more:
            parts.append(text_features(prompts))
        return np.concatenate(parts, axis=1)

    def transform(self, prompts: Sequence[str]) -> Encoded:
        """Return the transformer's own answer, from the cache where there is one."""
        if self.transformer is None:
            raise InvalidInputError("transformer: this view needs a sentence-transformers folder; pass --transformer")
        if self._cache is None:
            return self.transformer.encode(list(prompts))
        return self._cache.embed(self.transformer, prompts, verbose=True)


def text_features(prompts: Sequence[str]) -> Array:
    """Return (prompts, 10) cheap facts of the text, each about 0 to 0.3 so that they weigh like some columns of an embedding."""
    rows = []
    for prompt in prompts:
        length = max(len(prompt), 1)
        words = prompt.split()
        rows.append(
            (
                np.log(length) / 10,
                np.log(1 + len(words)) / 10,
                np.log(1 + prompt.count("\n")) / 5,
                sum(map(len, words)) / max(len(words), 1) / 20,
                len(_DIGIT.findall(prompt)) / length,
                len(_OPERATOR.findall(prompt)) / length * 2,
                len(_CODE.findall(prompt)) / length * 2,
                min(len(_OPTION.findall(prompt)), 10) / 20,
                min(len(_QUESTION.findall(prompt.lower())), 10) / 20,
                sum(character > "\x7f" for character in prompt) / length,
            )
        )
    return np.asarray(rows, np.float64).reshape(len(prompts), 10)
