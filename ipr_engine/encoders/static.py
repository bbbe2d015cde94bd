"""The static tier averages a table's rows, one per token, over a prompt. It takes microseconds, and no framework."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import MOST_FADING_TURNS, SurfaceFeatures
from ipr_engine._C import StaticEncoder as NativeStatic
from ipr_engine._files import file_sha256
from ipr_engine.bundle import encoder_identity, folded_width_identity, head_view_identity
from ipr_engine.bundle.conversation import RECENCY
from ipr_engine.encoders.base import Encoded, as_prompt_list
from ipr_engine.encoders.model_files import map_tensors, parse_json, read_bytes
from ipr_engine.encoders.tokenizer import LibraryTokenizer, WordPieceTokenizer, read_tokenizer
from ipr_engine.errors import (
    BundleFormatError,
    BundleShapeError,
    BundleValueError,
    InvalidInputError,
)

POOLING = "mean"


class StaticEncoder:
    """A `StaticEncoder` runs a model2vec model (docs/decide.md): x = mean of weights[id] * embeddings[mapping[id]] over known ids.

    With a head view, the mean of the first known ids alone stands behind it.

    Immutable and safe to share between threads. `load` and `from_folder` build it.

    Attributes:
        dim: columns of the table, or twice as many with a head view. max_tokens: the most tokens of a prompt in the first mean.
        head_tokens: how many known tokens of a prompt's beginning are in the second mean; 0: there is none.
        head_dim: how many of the columns are that mean.
        fold_width: whether full width forms are read as the ASCII that they stand for.
        identity: see `ipr_engine.bundle.encoder_identity`.
        normalize: whether x is divided by its norm.
        tokenizer: makes the ids; tokenizer.kind is "wordpiece" (C++) or "tokenizers" (the library).
        isa: the instruction set in use, "scalar", "avx2" or "avx512"; all give the same bits.
        native: the C++ object that encodes text on its own, None when tokenizer.kind is "tokenizers".
        tier: None: there is one way to read a table.
    """

    tier = None

    def __init__(
        self,
        tensors: dict[str, NDArray[Any]],
        tokenizer: WordPieceTokenizer | LibraryTokenizer,
        *,
        normalize: bool,
        max_tokens: int,
        head_tokens: int,
        fold_width: bool,
        isa: str,
        identity: str,
    ) -> None:
        self._tensors = tensors
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.head_tokens = head_tokens
        self.fold_width = fold_width
        self.normalize = normalize
        self.identity = identity
        self._native = self._make_native(isa)
        self.native = self._native if isinstance(tokenizer, WordPieceTokenizer) else None
        self.dim = self._native.dim
        self.head_dim = self.dim // 2 if head_tokens else 0
        self.isa = self._native.isa

    def _make_native(self, isa: str, surface: SurfaceFeatures | None = None, task_columns: int = 0) -> NativeStatic:
        mapping, weights = self._tensors.get("mapping"), self._tensors.get("weights")
        return NativeStatic(
            self._tensors["embeddings"],
            tokenizer=self.tokenizer.native if isinstance(self.tokenizer, WordPieceTokenizer) else None,
            mapping=None if mapping is None else mapping.astype(np.int64),
            weights=None if weights is None else weights.astype(np.float32),
            unk_id=self.tokenizer.unk_id,
            max_tokens=self.max_tokens,
            head_tokens=self.head_tokens,
            normalize=self.normalize,
            isa=isa,
            task_columns=task_columns,
            surface=surface,
        )

    def native_with(self, surface: SurfaceFeatures | None, task_columns: int) -> NativeStatic | None:
        """Return a C++ object that encodes text as `native` does, with columns of 0 for tasks and then surface features behind the
        embedding; None where native is None."""
        return None if self.native is None else self._make_native(self.isa, surface, task_columns)

    @classmethod
    def load(
        cls,
        table_path: str | Path,
        tokenizer_path: str | Path,
        config_path: str | Path,
        *,
        max_tokens: int = 512,
        head_tokens: int = 0,
        fold_width: bool = False,
        isa: str = "auto",
        tokenizer: str = "auto",
    ) -> StaticEncoder:
        """Load a model2vec model. The table stays in its file, mapped: the file must not change while this lives.

        Args:
            table_path: safetensors: `embeddings` (rows, dim) float32, float16 or int8; optional `mapping` (tokens,)
                integers, the row of each token id; optional `weights` (tokens,) floats, rounded to float32.
            tokenizer_path: tokenizer.json. Its truncation, padding and post-processor do not apply.
            config_path: config.json; `normalize` (bool, default false) is read.
            max_tokens: >= 1. Of a longer prompt the first and last half are kept, each cut between words.
            head_tokens: 0, or how many known tokens of a prompt's beginning have a mean of their own behind that of the whole,
                normalised as that is; it does not matter what was cut.
            fold_width: whether a prompt's full width forms (U+FF01 to U+FF5E) are read as ASCII, and U+3000 as a blank. Most tables
                know no such token, and read a prompt in full width as if it had no words.
            isa: "auto" (the widest this processor has), "scalar", "avx2" or "avx512".
            tokenizer: "auto" (C++ where its ids are the library's, else the library), "wordpiece" or "tokenizers".
        Raises:
            InvalidInputError: an argument is outside of the above.
            BackendUnavailableError: the processor lacks isa, or the tokenizers library is needed and not installed.
            BundleNotFoundError, BundleFormatError, BundleShapeError, BundleValueError: a file is not what it should be.
        """
        if type(max_tokens) is not int or max_tokens < 1:
            raise InvalidInputError(f"max_tokens: expected an int >= 1, got {max_tokens!r}")
        if type(head_tokens) is not int or not 0 <= head_tokens < 1 << 31:
            raise InvalidInputError(
                f"head_tokens: expected an int in [0, 2^31), 0 for no head view, got {head_tokens!r}"
            )
        if type(fold_width) is not bool:
            raise InvalidInputError(f"fold_width: expected True or False, got {fold_width!r}")
        if not isinstance(isa, str):
            raise InvalidInputError(f"isa: expected str, got {type(isa).__name__}")
        tokenizer_bytes, config_bytes = read_bytes(tokenizer_path), read_bytes(config_path)
        tensors = map_tensors(table_path)
        normalize = _read_normalize(config_path, config_bytes)
        chosen = read_tokenizer(tokenizer_bytes, tokenizer, fold_width=fold_width)
        _check_tensors(table_path, tensors, chosen.max_id)
        identity = encoder_identity(
            kind="static",
            table=file_sha256(table_path)[0],
            tokenizer=hashlib.sha256(tokenizer_bytes).hexdigest(),
            config=hashlib.sha256(config_bytes).hexdigest(),
            pooling=POOLING,
            normalize=normalize,
            max_tokens=max_tokens,
        )
        return cls(
            tensors,
            chosen,
            normalize=normalize,
            max_tokens=max_tokens,
            head_tokens=head_tokens,
            fold_width=fold_width,
            isa=isa,
            identity=head_view_identity(folded_width_identity(identity, fold_width), head_tokens),
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        max_tokens: int = 512,
        head_tokens: int = 0,
        fold_width: bool = False,
        isa: str = "auto",
        tokenizer: str = "auto",
    ) -> StaticEncoder:
        """Call `load` on a folder that model2vec's save_pretrained wrote."""
        folder = Path(folder)
        return cls.load(
            folder / "model.safetensors",
            folder / "tokenizer.json",
            folder / "config.json",
            max_tokens=max_tokens,
            head_tokens=head_tokens,
            fold_width=fold_width,
            isa=isa,
            tokenizer=tokenizer,
        )

    @property
    def summary(self) -> str:
        """Tier, dimensions, row type, tokenizer, folding of width, head view."""
        width = ", full width folded" if self.fold_width else ""
        head = f", head of {self.head_tokens} tokens" if self.head_tokens else ""
        return f"static {self.dim}-d {self._tensors['embeddings'].dtype}, {self.tokenizer.kind} tokenizer{width}{head}"

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Embed each prompt; see `Encoder.encode`. A prompt without known tokens, "" for one, gives x = 0.

        Example:
            >>> encoder = StaticEncoder.from_folder(folder)
            >>> encoder.encode(["Hello!", ""]).billed_tokens.tolist()
            [2, 0]
        """
        if not isinstance(prompts, (list, tuple)):
            prompts = as_prompt_list(prompts)
        if isinstance(self.tokenizer, WordPieceTokenizer):
            return Encoded(*self._native.encode(prompts))
        x = np.empty((len(prompts), self.dim), dtype=np.float32)
        billed = np.empty(len(prompts), dtype=np.int64)
        truncated = np.empty(len(prompts), dtype=np.bool_)
        for row, prompt in enumerate(prompts):
            try:
                ids, starts = self.tokenizer.encode(prompt)
            except InvalidInputError as error:
                raise InvalidInputError(str(error).replace("text", f"prompts[{row}]", 1)) from None
            x[row], truncated[row] = self._native.encode_ids(ids, starts)  # ids and starts: (tokens,)
            billed[row] = len(ids)
        return Encoded(x, billed, truncated)

    def encode_turns(self, turns: Sequence[tuple[str, ...]]) -> Encoded:
        """Embed each conversation, its turns weighed; see `TurnEncoder.encode_turns`."""
        if isinstance(self.tokenizer, WordPieceTokenizer):
            return Encoded(*self._native.encode_turns(list(turns), RECENCY))
        made = [self._faded(of) for of in turns]
        x = np.empty((len(turns), self.dim), np.float32)
        for row, (own, _, _) in enumerate(made):
            x[row] = own
        return Encoded(x, np.array([n for _, n, _ in made], np.int64), np.array([cut for _, _, cut in made], np.bool_))

    def _faded(self, turns: tuple[str, ...]) -> tuple[NDArray[np.float32], int, bool]:
        """Return x (dim,), tokens of all turns, and whether one that is weighed was cut, as C++ does with ids of its own."""
        x, told, tokens, truncated = np.zeros(self.dim, np.float32), False, 0, False
        width = self.dim - self.head_dim
        means: list[NDArray[np.float32]] = []  # (width,) each, newest first
        for turn in reversed(turns):
            ids, starts = self.tokenizer.encode(turn)
            tokens += len(ids)
            if not len(ids) or len(means) == MOST_FADING_TURNS:
                continue
            own, cut = self._native.encode_ids(ids, starts)
            x, told = (x if told else own), True
            if (ids != self.tokenizer.unk_id).any():
                means.append(own[:width])
                truncated = truncated or cut
        if means:
            x = x.copy()
            x[:width] = means[0] if len(means) == 1 else self._native.fade(np.stack(means))
        return x, tokens, truncated

    def count_tokens(self, text: str) -> int:
        """Return the tokens of a text as `billed_tokens` counts them."""
        return self.tokenizer.count(text)

    def __repr__(self) -> str:
        table = self._tensors["embeddings"]
        optional = "".join(f", {name}" for name in ("mapping", "weights") if name in self._tensors)
        return (
            f"StaticEncoder(rows={table.shape[0]}, dim={self.dim}, {table.dtype}{optional}, "
            f"normalize={self.normalize}, max_tokens={self.max_tokens}, head_tokens={self.head_tokens}, "
            f"fold_width={self.fold_width}, tokenizer={self.tokenizer.kind!r}, isa={self.isa!r}, identity={self.identity[:12]}...)"
        )


def _read_normalize(path: str | Path, config_bytes: bytes) -> bool:
    """Return `normalize` of a config.json; BundleFormatError where it is no bool."""
    config = parse_json(path, config_bytes)
    normalize = config.get("normalize", False) if isinstance(config, dict) else None
    if type(normalize) is not bool:
        raise BundleFormatError(f"{path}: expected an object whose normalize is true or false, got {normalize!r}")
    return normalize


def _check_tensors(path: str | Path, tensors: dict[str, NDArray[Any]], max_id: int) -> None:
    """Refuse tensors that are no table for ids up to max_id: names, shapes, types and values."""
    table, mapping, weights = (tensors.get(name) for name in ("embeddings", "mapping", "weights"))
    unknown = tensors.keys() - {"embeddings", "mapping", "weights"}
    if table is None or unknown:
        raise BundleFormatError(f"{path}: expected embeddings, optionally mapping and weights, got {sorted(tensors)}")
    if table.ndim != 2 or table.shape[1] == 0 or table.dtype not in (np.float32, np.float16, np.int8):
        raise BundleShapeError(
            f"{path}: embeddings: expected (rows, dim) float32, float16 or int8, got {table.shape} {table.dtype}"
        )
    if mapping is not None:
        if mapping.ndim != 1 or mapping.dtype.kind not in "iu":
            raise BundleShapeError(f"{path}: mapping: expected (tokens,) integers, got {mapping.shape} {mapping.dtype}")
        if mapping.size and (int(mapping.min()) < 0 or int(mapping.max()) >= len(table)):
            raise BundleValueError(
                f"{path}: mapping: expected rows from 0 to {len(table) - 1}, got {mapping.min()} to {mapping.max()}"
            )
    tokens = len(table) if mapping is None else len(mapping)
    if max_id >= tokens:
        raise BundleShapeError(
            f"{path}: the tokenizer's ids reach {max_id}, but there are rows for {tokens} tokens only"
        )
    if weights is not None:
        if weights.shape != (tokens,) or weights.dtype.kind != "f":
            raise BundleShapeError(f"{path}: weights: expected ({tokens},) floats, got {weights.shape} {weights.dtype}")
        if not np.isfinite(weights).all():
            raise BundleValueError(f"{path}: weights: expected finite values, got NaN or infinity")
