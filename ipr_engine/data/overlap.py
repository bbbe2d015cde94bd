"""Which prompts were fitted on: hashes that a bundle keeps instead of text, and what of other outcomes is among them.

A hash is the first 64 bits of a sha256 of the prompt's letters and digits (case folded), and another of its question key. Whoever has a
prompt can find out whether it was fitted on; nothing else can be read from them. Two of a million prompts share a
hash by chance with probability 3e-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data.duplicates import normalised
from ipr_engine.data.outcomes import MIN_KEY, Outcomes
from ipr_engine.errors import BundleFormatError

Hashes = npt.NDArray[np.uint64]
PARTS = ("texts", "questions")


def _hash(kind: str, text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{kind}\n{text}".encode("utf-8", "surrogatepass")).digest()[:8], "little")


def _texts(prompts: Sequence[str]) -> list[int]:
    return [_hash("text", normalised(prompt) or prompt) for prompt in prompts]


def _questions(keys: Sequence[str]) -> list[int | None]:
    """None where the key is too short to say that two questions are the same."""
    return [_hash("question", key) if len(key) >= MIN_KEY else None for key in keys]


def _sorted(values: Iterable[int | None]) -> Hashes:
    return np.array(sorted({value for value in values if value is not None}), dtype=np.uint64)


def prompt_hashes(prompts: Sequence[str], question_keys: Sequence[str]) -> dict[str, Hashes]:
    """{"texts", "questions"}: the sorted distinct hashes of these prompts and of their question keys, for a bundle's heads."""
    return {"texts": _sorted(_texts(prompts)), "questions": _sorted(_questions(question_keys))}


def overlap(outcomes: Outcomes, hashes: Mapping[str, Hashes]) -> npt.NDArray[np.bool_]:
    """(rows,): whether the prompt, or its question, is among those hashed."""
    seen = [set(hashes[part].tolist()) for part in PARTS]
    rows = zip(_texts(outcomes.prompts), _questions(outcomes.question_keys), strict=True)
    return np.array([text in seen[0] or question in seen[1] for text, question in rows], dtype=np.bool_)


def read_prompt_hashes(path: Path) -> dict[str, Hashes]:
    """What `prompt_hashes` gave and a bundle kept.

    Raises:
        BundleFormatError: the file is none of this kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleFormatError(f"{path}: expected prompt hashes as safetensors ({error}); train again") from None
    if sorted(found) != sorted(PARTS) or any(part.dtype != np.uint64 or part.ndim != 1 for part in found.values()):
        raise BundleFormatError(f"{path}: expected the uint64 arrays {', '.join(PARTS)}, got others; train again")
    return {part: found[part] for part in PARTS}
