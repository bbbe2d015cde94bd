"""An `EmbeddingCache` keeps embeddings on disk, and finds them by the encoder's identity and the prompt's hash."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._files import write_atomically
from ipr_engine._tensor_files import metadata_of, tensor_file
from ipr_engine._validate import lone_surrogate
from ipr_engine.data.progress import Progress
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.task_columns import TaskColumns
from ipr_engine.errors import InvalidInputError

SHARD_ROWS = 8192
BATCH = 256
_VERSION = "1"
_REPORT_EVERY_S = 10.0


class EmbeddingCacheWarning(UserWarning):
    """An `EmbeddingCacheWarning` tells that a shard of the cache was damaged, and that its rows are computed again."""


class EmbeddingCache:
    """An `EmbeddingCache` is a folder of safetensors shards: <folder>/<encoder identity>/<sha256 of the shard's bytes>.safetensors.

    A shard's name is the hash of its bytes and its header names the encoder, so a damaged, renamed or misplaced shard is
    found out, reported (`EmbeddingCacheWarning`), deleted and computed again. Shards are written whole or not at all, each as soon as
    its rows are known: an interrupted run loses at most 8192 rows. Several processes may share a folder.

    Example:
        >>> encoded = EmbeddingCache(folder).embed(encoder, ["Hello!", "Why?"])
        >>> encoded.x.shape == (2, encoder.dim)
        True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Take the folder, which need not exist; InvalidInputError where it is a file."""
        self.folder = Path(folder)
        self._keys_of: dict[str, bytes] = {}  # a shard's name -> hash of its prompts' keys
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInputError(f"folder: expected a folder, {self.folder} is a file")

    def embed(self, encoder: Encoder, prompts: Sequence[str], *, verbose: bool = False) -> Encoded:
        """Return what `encoder.encode(prompts)` returns, bit for bit; only prompts not seen before are encoded.

        A tier whose rows depend on their batch mates (`TorchEncoder`) is kept to its own bound: a row is as it was first computed.
        Memory is the result's and one shard's. A progress bar is shown on stderr if it is a terminal, or if `verbose`. Of encoders
        side by side each is kept for itself, so that the slow one serves alone as well.
        """
        if isinstance(prompts, str):
            raise InvalidInputError("prompts: expected a sequence of str, got one str; pass [prompt]")
        if isinstance(encoder, ConcatenatedEncoder):
            return encoder.join([self.embed(part, prompts, verbose=verbose) for part in encoder.encoders])
        rows_of = _rows_of(prompts)
        result = Encoded(
            np.empty((len(prompts), encoder.dim), dtype=np.float32),
            np.empty(len(prompts), dtype=np.int64),
            np.empty(len(prompts), dtype=np.bool_),
        )
        place = self.folder / _folder_name(encoder.identity)
        with Progress("embedding", len(rows_of), verbose=verbose) as progress:
            for shard in sorted(place.glob("*.safetensors")):
                if not rows_of:
                    break
                tensors = self._read(shard, encoder)
                if tensors is not None:
                    progress.advance(_fill(result, rows_of, tensors))
            missing = [(key, prompts[rows[0]]) for key, rows in rows_of.items()]
            for begin in range(0, len(missing), SHARD_ROWS):
                part = missing[begin : begin + SHARD_ROWS]
                tensors = _encode(encoder, part, progress)
                self._write(place, encoder, tensors)
                _fill(result, rows_of, tensors)
        return result

    def absent(self, encoder: Encoder, prompts: Sequence[str]) -> list[str]:
        """Return the prompts that are not kept yet, each once, in order."""
        rows_of = _rows_of(prompts)
        for shard in sorted((self.folder / _folder_name(encoder.identity)).glob("*.safetensors")):
            tensors = self._read(shard, encoder)
            for key in () if tensors is None else tensors["keys"]:
                rows_of.pop(key.tobytes(), None)
        return [prompts[rows[0]] for rows in rows_of.values()]

    def has_shard(self, encoder: Encoder, prompts: Sequence[str]) -> bool:
        """Return whether a shard holds these prompts, all of them in this order and no others; a shard's rows are not read for it."""
        wanted = hashlib.sha256(b"".join(_key(prompt, row) for row, prompt in enumerate(prompts))).digest()
        for shard in (self.folder / _folder_name(encoder.identity)).glob("*.safetensors"):
            if shard.name not in self._keys_of:
                self._keys_of[shard.name] = _hash_of_keys(shard)
        return wanted in self._keys_of.values()

    def add(self, encoder: Encoder, prompts: Sequence[str]) -> None:
        """Encode prompts, whether they are kept or not, and keep them as one shard; for at most 8192 of them, which are absent."""
        part = [(_key(prompt, row), prompt) for row, prompt in enumerate(prompts)]
        with Progress("embedding", len(part)) as progress:
            self._write(self.folder / _folder_name(encoder.identity), encoder, _encode(encoder, part, progress))

    def _read(self, shard: Path, encoder: Encoder) -> dict[str, npt.NDArray[Any]] | None:
        """Return the shard's tensors; None, after a warning, if it is not what its name and place say."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            data = shard.read_bytes()
        except FileNotFoundError:  # another process found it damaged, reported and deleted it
            return None
        reason = None
        # Before anything in it is parsed.
        if hashlib.sha256(data).hexdigest() != shard.stem:
            reason = "its bytes are not those that were written"
        else:
            try:
                tensors: dict[str, npt.NDArray[Any]] = load(data)
                written_for = metadata_of(data)
            except (SafetensorError, ValueError, KeyError) as error:
                reason = f"it is no safetensors file ({error})"
            else:
                if written_for != {"encoder": encoder.identity, "version": _VERSION}:
                    reason = "it was written for another encoder or by another version"
                elif tensors["x"].shape[1:] != (encoder.dim,):
                    reason = f"its rows have {tensors['x'].shape[1:]} numbers, the encoder has {encoder.dim}"
        if reason is None:
            return tensors
        warnings.warn(
            f"embedding cache: {shard.name[:12]}... is dropped and computed again: {reason}",
            EmbeddingCacheWarning,
            # 3: the line that called `embed`
            stacklevel=3,
        )
        shard.unlink(missing_ok=True)
        return None

    def _write(self, place: Path, encoder: Encoder, tensors: dict[str, npt.NDArray[Any]]) -> None:
        """Write tensors as a shard under the hash of its bytes."""
        data = tensor_file(tensors, {"encoder": encoder.identity, "version": _VERSION})
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / f"{hashlib.sha256(data).hexdigest()}.safetensors", data)


def embed_prompts(
    encoder: Encoder,
    prompts: Sequence[str],
    *,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Encoded:
    """Return `encoder.encode(prompts)`, read from the cache where there is one, and report progress of long work.

    Args:
        cache: a cache or its folder. A table is read, and surface features are counted, faster than a cache: they are not kept in it.
        progress: called with how far it is, every ten seconds.
    """
    # A table and surface features are made in C++, faster than a shard is read and checked.
    if encoder.native is not None or isinstance(encoder, (SurfaceEncoder, TaskColumns)):
        return encoder.encode(list(prompts))
    if isinstance(encoder, ConcatenatedEncoder):
        return encoder.join([embed_prompts(p, prompts, cache=cache, progress=progress) for p in encoder.encoders])
    reporter = reporting(encoder, progress)
    if cache is not None:
        kept = cache if isinstance(cache, EmbeddingCache) else EmbeddingCache(cache)
        return kept.embed(reporter, prompts)
    parts = [reporter.encode(list(prompts[begin : begin + BATCH])) for begin in range(0, len(prompts), BATCH)]
    return Encoded(
        np.concatenate([part.x for part in parts] or [np.zeros((0, encoder.dim), np.float32)]),
        np.concatenate([part.billed_tokens for part in parts] or [np.zeros(0, np.int64)]),
        np.concatenate([part.truncated for part in parts] or [np.zeros(0, np.bool_)]),
    )


def reporting(encoder: Encoder, progress: Callable[[str], None]) -> Encoder:
    """Return the encoder wrapped, so that it reports every ten seconds how many prompts it has embedded."""
    return _Reporting(encoder, progress)


class _Reporting:
    """A `_Reporting` is an encoder that reports how many prompts it has embedded, every so often."""

    native = None

    def __init__(self, encoder: Encoder, progress: Callable[[str], None]) -> None:
        self._encoder, self._progress = encoder, progress
        self.dim, self.max_tokens = encoder.dim, encoder.max_tokens
        self.identity, self.summary, self.tier = encoder.identity, encoder.summary, encoder.tier
        self._done, self._reported = 0, time.monotonic()

    def encode(self, prompts: Sequence[str]) -> Encoded:
        encoded = self._encoder.encode(prompts)
        self._done += len(encoded)
        if time.monotonic() - self._reported >= _REPORT_EVERY_S:
            self._reported = time.monotonic()
            self._progress(f"{self._done} prompts embedded ({self.summary}) ...")
        return encoded

    def count_tokens(self, text: str) -> int:
        return self._encoder.count_tokens(text)


def _hash_of_keys(shard: Path) -> bytes:
    """Return the hash of a shard's keys; nothing where it is damaged, or gone, or of another version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, framework="numpy") as tensors:
            if (tensors.metadata() or {}).get("version") != _VERSION:
                return b""
            return hashlib.sha256(tensors.get_tensor("keys").tobytes()).digest()
    except (OSError, SafetensorError):
        return b""


def _rows_of(prompts: Sequence[str]) -> dict[bytes, list[int]]:
    """Return the rows of each distinct prompt, which is looked up and encoded once, whatever number of rows has it."""
    rows_of: dict[bytes, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(_key(prompt, row), []).append(row)
    return rows_of


def _key(prompt: str, row: int) -> bytes:
    """Return the sha256 of a prompt, by which the cache finds it; InvalidInputError names the row of what is no text."""
    if not isinstance(prompt, str):
        raise InvalidInputError(f"prompts[{row}]: expected a str, got {type(prompt).__name__}")
    if lone_surrogate(prompt) is not None:
        raise InvalidInputError(f"prompts[{row}]: expected Unicode text, it holds a lone surrogate")
    return hashlib.sha256(prompt.encode()).digest()


def _folder_name(identity: str) -> str:
    """Return the identity itself if it is a sha256, else the sha256 of it: a folder's name never comes from outside as it is."""
    # An identity may hold anything, "../" too.
    if len(identity) == 64 and set(identity) <= set("0123456789abcdef"):
        return identity
    return hashlib.sha256(identity.encode()).hexdigest()


def _encode(encoder: Encoder, part: list[tuple[bytes, str]], progress: Progress) -> dict[str, npt.NDArray[Any]]:
    """Encode prompts in batches and return the shard of them, with each prompt's hash in `keys`."""
    encoded = []
    for begin in range(0, len(part), BATCH):
        batch = [prompt for _, prompt in part[begin : begin + BATCH]]
        encoded.append(encoder.encode(batch))
        progress.advance(len(batch))
    return {
        # keys: (rows, 32) uint8, x: (rows, dim) float32, billed_tokens: (rows,) int64, truncated: (rows,) bool
        "keys": np.frombuffer(b"".join(key for key, _ in part), dtype=np.uint8).reshape(-1, 32),
        "x": np.concatenate([batch.x for batch in encoded]),
        "billed_tokens": np.concatenate([batch.billed_tokens for batch in encoded]),
        "truncated": np.concatenate([batch.truncated for batch in encoded]),
    }


def _fill(result: Encoded, rows_of: dict[bytes, list[int]], tensors: dict[str, npt.NDArray[Any]]) -> int:
    """Copy the shard's rows that are wanted into `result`, strike them off `rows_of`, and return how many prompts that were."""
    found = 0
    for i, key in enumerate(tensors["keys"]):
        rows = rows_of.pop(key.tobytes(), None)
        if rows is not None:
            found += 1
            result.x[rows] = tensors["x"][i]
            result.billed_tokens[rows] = tensors["billed_tokens"][i]
            result.truncated[rows] = tensors["truncated"][i]
    return found
