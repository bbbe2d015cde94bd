"""What a frozen transformer is: all that decides its embeddings besides the arithmetic of a tier, and the identity that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ipr_engine.bundle import encoder_identity
from ipr_engine.errors import BundleFormatError

POOLINGS = ("mean", "cls", "last")


@dataclass(frozen=True, kw_only=True)
class TransformerFiles:
    """The files of a transformer and what becomes of its token states: all that its identity is made of.

    Attributes:
        pooling: "mean" over all ids, the first one's state ("cls") or the "last" one's. normalize: x / max(||x||, 1e-12).
        tokenizer: the bytes of tokenizer.json.
        weights_sha256, tokenizer_sha256, config_sha256: of the original files; of several weight files, over their names
            and hashes.
    """

    pooling: str
    normalize: bool
    tokenizer: bytes
    weights_sha256: str
    tokenizer_sha256: str
    config_sha256: str

    def identity(self, max_tokens: int, *, dtype: str | None = None) -> str:
        """Return the encoder's name, the same on every tier (see `ipr_engine.bundle.encoder_identity`).

        Args:
            dtype: None for float32 and for what differs from it by no more than a cosine of 0.9999 (float16); else its name.
        """
        return encoder_identity(
            kind="transformer",
            table=self.weights_sha256,
            tokenizer=self.tokenizer_sha256,
            config=self.config_sha256,
            pooling=self.pooling,
            normalize=self.normalize,
            max_tokens=max_tokens,
            dtype=dtype,
        )


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(TransformerFiles):
    """All that decides an embedding besides the arithmetic of a tier.

    Attributes:
        before, after: the special ids around those of a prompt. pad_id: what fills a row up.
        positions: the most ids the model can see, None where it has no table of them.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int
    positions: int | None


def special_ids(tokenizer: bytes, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a tokenizer.json's post-processor puts before and after the tokens of a text; needs `tokenizers`."""
    from tokenizers import Tokenizer

    try:
        library = Tokenizer.from_str(tokenizer.decode())
        library.no_truncation()
        library.no_padding()
        probe = library.encode("a")
    except Exception as error:  # the library raises bare Exception
        raise BundleFormatError(f"{where}: the tokenizers library fails on it: {error}") from error
    own = np.flatnonzero(np.array(probe.special_tokens_mask) == 0)
    if not len(own):
        raise BundleFormatError(f"{where}: it gives no token for the text 'a'")
    return tuple(probe.ids[: own[0]]), tuple(probe.ids[own[-1] + 1 :])
