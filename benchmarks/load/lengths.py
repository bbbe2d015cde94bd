"""A `Mix` holds prompts of asked-for lengths: generated words, or a file's own prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ipr_engine.errors import InvalidInputError

MOST_TOKENS = 32_768
MOST_PROMPTS = 100_000
DISTINCT = 256  # prompts of a generated mix: more than a cache of decisions or of the processor's first level holds
# The built-in mix: an assumption, not a measurement of anyone's traffic.
MEDIAN_TOKENS, SIGMA, LEAST, MOST = 90.0, 1.1, 4, 2048
# Each is one token of the usual English WordPiece vocabularies, so that a length is reached exactly.
WORDS = (
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he",
    "his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one", "you", "were",
    "her", "all", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who", "will", "more",
    "no", "if", "out", "so", "said", "what", "up", "its", "about", "into", "than", "them", "can", "only", "other",
    "new", "some", "could", "time", "these", "two", "may", "then", "do", "first", "any", "my", "now", "such",
    "like", "our", "over", "man", "me", "even", "most", "made", "after", "also", "did", "many", "before", "must",
    "through", "back", "years", "where", "much", "your", "way", "well", "down", "should", "because", "each",
    "just", "those", "people", "how", "too", "little", "state", "good", "very", "make", "world", "still", "own",
    "see", "men", "work", "long", "get", "here",
)  # fmt: skip


@dataclass(frozen=True)
class Mix:
    """A `Mix` holds the prompts to send.

    Attributes:
        prompts: in a fixed order; requests take them in turn.
        label: what a report calls it.
        tokens: of each, as the engine's encoder counts them.
    """

    prompts: tuple[str, ...]
    label: str
    tokens: tuple[int, ...]


def generated(lengths: Sequence[int], count_tokens: Callable[[str], int], *, seed: int, label: str) -> Mix:
    """Generate prompts, one a length."""
    rng = np.random.default_rng([seed, 1])
    prompts = tuple(text_of(length, count_tokens, rng) for length in lengths)
    return Mix(prompts, label, tuple(count_tokens(prompt) for prompt in prompts))


def fixed_lengths(lengths: Sequence[int], count_tokens: Callable[[str], int], *, seed: int) -> Mix:
    """Generate equal shares of each length, in random order."""
    for length in lengths:
        _check_length("--lengths", length)
    every = np.random.default_rng([seed, 0]).permutation(np.resize(lengths, max(DISTINCT, len(lengths))))
    return generated(every.tolist(), count_tokens, seed=seed, label=f"{','.join(map(str, lengths))} tokens")


def log_normal(count_tokens: Callable[[str], int], *, seed: int) -> Mix:
    """Generate the built-in mix: log-normal lengths, median 90 tokens, sigma 1.1, cut to 4 .. 2048."""
    drawn = np.random.default_rng([seed, 0]).lognormal(np.log(MEDIAN_TOKENS), SIGMA, DISTINCT)
    lengths = np.clip(np.rint(drawn), LEAST, MOST).astype(int).tolist()
    return generated(lengths, count_tokens, seed=seed, label="log-normal, median 90 tokens")


def from_file(path: str | Path, count_tokens: Callable[[str], int], *, seed: int) -> Mix:
    """Read a recorded mix, one JSON a line: {"prompt": text}, {"tokens": n}, a text, or a number of tokens.

    Raises:
        InvalidInputError: the file cannot be read, or a line is none of these.
    """
    rng = np.random.default_rng([seed, 1])
    prompts: list[str] = []
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                if len(prompts) == MOST_PROMPTS:
                    raise InvalidInputError(f"--mix: {path}: expected at most {MOST_PROMPTS:,} lines; take a sample")
                item = _item(line, f"--mix: {path}, line {number}")
                prompts.append(item if isinstance(item, str) else text_of(item, count_tokens, rng))
    except OSError as error:
        raise InvalidInputError(f"--mix: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"--mix: {path}: expected UTF-8, got byte {error.object[error.start]:#04x}") from None
    if not prompts:
        raise InvalidInputError(f"--mix: {path}: expected one prompt or length a line, got an empty file")
    order = np.random.default_rng([seed, 0]).permutation(len(prompts))
    shuffled = tuple(prompts[i] for i in order)
    return Mix(shuffled, f"{Path(path).name}, {len(prompts)} prompts", tuple(count_tokens(p) for p in shuffled))


def _item(line: str, where: str) -> str | int:
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{where}: expected one JSON value a line, got {error}") from None
    if isinstance(item, dict):
        if ("prompt" in item) == ("tokens" in item):
            raise InvalidInputError(f'{where}: expected an object with either "prompt" or "tokens"')
        item = item["prompt"] if "prompt" in item else item["tokens"]
    if isinstance(item, str):
        if not item.strip():
            raise InvalidInputError(f"{where}: expected a prompt with text in it, got {item!r}")
        return item
    return _check_length(where, item)


def _check_length(where: str, value: object) -> int:
    if type(value) is not int or not 1 <= value <= MOST_TOKENS:
        raise InvalidInputError(f"{where}: expected a whole number of tokens from 1 to {MOST_TOKENS:,}, got {value!r}")
    return value


def text_of(tokens: int, count_tokens: Callable[[str], int], rng: np.random.Generator) -> str:
    """Return words that make exactly `tokens` tokens, or as near as this vocabulary allows."""
    words = rng.choice(WORDS, tokens).tolist()
    low, high = 0, tokens  # how many of them stay within: fewer where this vocabulary splits some
    while low < high:
        middle = (low + high + 1) // 2
        if count_tokens(" ".join(words[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    missing = tokens - (count_tokens(" ".join(words[:low])) if low else 0)
    return " ".join([*words[:low], *["a"] * missing])
