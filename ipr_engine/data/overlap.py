"""A bundle keeps hashes of its fitting prompts instead of text; `overlap` finds other outcomes' prompts among them.

A hash is the first 64 bits of an HMAC-SHA256, under the owner's key, of the prompt's letters and digits (case folded), and
another of its question key. Whoever has the key and a prompt can find out whether it was fitted on; without the key nothing can
be read from them. Bundles of schema_version 4 and earlier hold plain sha256, which tells it to anyone who guesses the prompt. Two
of a million prompts share a hash by chance with probability 3e-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import OwnerKey, key_of
from ipr_engine.bundle import BundleSpec, FittedOn
from ipr_engine.data.outcomes import MIN_KEY, Outcomes, normalised
from ipr_engine.errors import BundleFormatError, KeyMismatchError

Hashes = npt.NDArray[np.uint64]
PARTS = ("texts", "questions")


def _hash(kind: str, text: str, key: OwnerKey | None) -> int:
    """Return the first 64 bits of the hash of a text, of this kind ("text" or "question"); plain sha256 without a key."""
    # The kind is hashed too: a question key is never taken for a text. Lone surrogates hash like any character.
    message = f"{kind}\n{text}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(message).digest() if key is None else key.digest(message)
    return int.from_bytes(digest[:8], "little")


def _text(prompt: str, key: OwnerKey | None) -> int:
    """Return the hash of a prompt's letters and digits; of the prompt itself where it has none."""
    return _hash("text", normalised(prompt) or prompt, key)


def _texts(prompts: Sequence[str], key: OwnerKey | None) -> Iterator[int]:
    """Yield the hash of each prompt."""
    return (_text(prompt, key) for prompt in prompts)


def _questions(keys: Sequence[str], key: OwnerKey | None) -> Iterator[int | None]:
    """Yield the hash of each question key; None where a key is too short to say that two questions are the same."""
    return (_hash("question", question, key) if len(question) >= MIN_KEY else None for question in keys)


def _sorted(values: Iterable[int | None]) -> Hashes:
    """Return the distinct hashes, sorted, without None."""
    return np.unique(np.fromiter((value for value in values if value is not None), np.uint64))


def prompt_hashes(
    prompts: Sequence[str], question_keys: Sequence[str], key: OwnerKey | None = None
) -> dict[str, Hashes]:
    """Return {"texts", "questions"}: the sorted distinct hashes of these prompts and of their question keys, for a bundle's heads.

    key: the owner's. None gives plain hashes, for what is compared at once and never kept.
    """
    return {"texts": _sorted(_texts(prompts, key)), "questions": _sorted(_questions(question_keys, key))}


def overlap(outcomes: Outcomes, hashes: Mapping[str, Hashes], key: OwnerKey | None = None) -> npt.NDArray[np.bool_]:
    """Return (rows,) booleans: whether the prompt, or its question, is among those hashed under this key."""
    texts = np.fromiter(_texts(outcomes.prompts, key), np.uint64, len(outcomes))
    # A key that is too short to say anything is found nowhere.
    asked = [0 if question is None else question for question in _questions(outcomes.question_keys, key)]
    long = np.array([len(question) >= MIN_KEY for question in outcomes.question_keys], np.bool_)
    questions = np.array(asked, np.uint64)
    return np.isin(texts, hashes["texts"]) | (long & np.isin(questions, hashes["questions"]))


class FittedPrompts:
    """A `FittedPrompts` knows which prompts a bundle's heads were fitted on, as far as their hashes and keys are at hand."""

    def __init__(self, bundle: BundleSpec, keys: Sequence[OwnerKey]) -> None:
        """Read the hashes of every head; one without hashes, or under a key that is not among these, is not known."""
        self._known: list[tuple[frozenset[int], OwnerKey | None]] = []
        for heads in (bundle.quality_heads, bundle.escalation_heads):
            if heads is None or heads.fitted_on.prompt_hashes is None:
                continue
            try:
                key = key_of_hashes(heads.fitted_on, keys)
            except KeyMismatchError:
                continue
            texts = read_prompt_hashes(heads.fitted_on.prompt_hashes)[PARTS[0]]
            self._known.append((frozenset(texts.tolist()), key))

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and any(_text(text, key) in texts for texts, key in self._known)


def key_of_hashes(fitted_on: FittedOn, keys: Sequence[OwnerKey]) -> OwnerKey | None:
    """Return the key of these heads' hashes; None where they are plain.

    Raises:
        KeyMismatchError: none of the keys is theirs, and nothing could be found among them.
    """
    if fitted_on.hash_key is None:
        return None
    return key_of(fitted_on.hash_key, keys, "the hashes of the bundle's fitting prompts")


def read_prompt_hashes(path: Path) -> dict[str, Hashes]:
    """Read the hashes that `prompt_hashes` made and a bundle kept.

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
