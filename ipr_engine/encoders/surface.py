"""A `SurfaceEncoder` makes surface features of prompts: what a text looks like, beside what an embedding says it means."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ipr_engine._C import SurfaceFeatures
from ipr_engine.bundle import surface_identity
from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON, SurfaceLexicon, parse_lexicon
from ipr_engine.encoders.base import Encoded, as_prompt_list
from ipr_engine.encoders.model_files import read_bytes
from ipr_engine.encoders.surface_columns import lexicon_columns, plain_columns
from ipr_engine.errors import InvalidInputError


class SurfaceEncoder:
    """A `SurfaceEncoder` gives each prompt its surface features, numbers in [0, 1] (docs/encoders.md); surface_reference.py defines them.

    It reads texts, not tokens, and so has no bill: it stands beside an encoder that counts tokens, after it. Immutable and safe
    to share between threads. `load` builds it.

    Attributes:
        dim: columns, by lexicon. max_tokens: 0: no token is read, and no text is too long.
        identity: see `ipr_engine.bundle.surface_identity`.
        lexicon: the categories of words.
        surface: the C++ object.
        native: None: it does not encode a prompt alone. tier: None: there is one way to count.
    """

    native = None
    tier = None
    max_tokens = 0

    def __init__(self, lexicon: SurfaceLexicon, *, identity: str) -> None:
        names = list(lexicon.categories)
        self.surface = SurfaceFeatures(
            [list(words) for words in lexicon.categories.values()], [names.index(flag) for flag in lexicon.flags]
        )
        self.lexicon = lexicon
        self.dim = self.surface.dim
        self.identity = identity

    @classmethod
    def load(cls, lexicon_path: str | Path = DEFAULT_LEXICON) -> SurfaceEncoder:
        """Load the features with the lexicon in a file, by default the English one that comes with this package.

        Raises:
            BundleNotFoundError, BundleFormatError, BundleValueError: the file is no lexicon (`bundle.surface_lexicon`).
        """
        data = read_bytes(lexicon_path)
        lexicon = parse_lexicon(data, str(lexicon_path))
        return cls(lexicon, identity=surface_identity(hashlib.sha256(data).hexdigest()))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The name of each column, in order."""
        columns = (*plain_columns(), *lexicon_columns(tuple(self.lexicon.categories), self.lexicon.flags))
        return tuple(column.name for column in columns)

    @property
    def summary(self) -> str:
        """Dimensions and categories."""
        return f"surface {self.dim}-d, {len(self.lexicon.categories)} categories of words"

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Return the features of each prompt; see `Encoder.encode`. Bills are 0: the encoder that it stands beside has them.

        Example:
            >>> encoder = SurfaceEncoder.load()
            >>> encoder.encode(["What?"]).x[0, encoder.feature_names.index("ends_asking")].item()
            1.0
        """
        prompts = as_prompt_list(prompts)
        x = self.surface.write(prompts)
        return Encoded(x, np.zeros(len(x), np.int64), np.zeros(len(x), np.bool_))

    def count_tokens(self, text: str) -> int:
        """Raise InvalidInputError: features are of no tokenizer."""
        raise InvalidInputError(
            "surface features count no tokens; put them behind an encoder that does: ConcatenatedEncoder([encoder, surface])"
        )

    def __repr__(self) -> str:
        return f"SurfaceEncoder(dim={self.dim}, identity={self.identity[:12]}...)"
