"""`searched_suffix` finds words that send any prompt they stand behind to a dearer candidate, as whoever may ask the router can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]
Cost = Callable[[Sequence[str]], Array]

WORDS = 25  # of a suffix
MOST_WORDS = 4000  # that are tried
FIRST, KEPT, THEN = (
    8,
    48,
    32,
)  # prompts that every word is tried on; words that are kept; prompts that these are tried on
AT_ONCE = 4096  # texts that are decided in one call


def searched_suffix(
    words: Sequence[str], prompts: Sequence[str], cost: Cost, *, length: int = WORDS, seed: int = 0
) -> str:
    """Return `length` words, separated by blanks, found greedily: those that raise the mean cost of decisions most.

    Each word is first judged alone, as often as the suffix has words, and the best are kept. From the best one so repeated every place is
    then given, once, the kept word that raises the mean cost most.

    Args:
        words: to choose from. prompts: the suffix is found on some of these, drawn by `seed`.
        cost: returns (texts,) what the candidate that is chosen for each text costs in the mean.
        length: of the suffix, in words, >= 1.
    Raises:
        InvalidInputError: no words, no prompts, or a suffix of none.
    """
    if not words or not prompts:
        raise InvalidInputError("words, prompts: expected at least one of each, got none")
    if length < 1:
        raise InvalidInputError(f"length: expected at least 1 word, got {length}")
    order = np.random.default_rng(seed).permutation(len(prompts))
    few, more = ([prompts[at] for at in order[:count]] for count in (FIRST, THEN))
    alone = _mean_costs([f" {' '.join([word] * length)}" for word in words], few, cost)
    kept = [words[at] for at in np.argsort(-alone, kind="stable")[:KEPT]]
    suffix = [kept[0]] * length
    for place in range(length):
        tried = [[*suffix[:place], word, *suffix[place + 1 :]] for word in kept]
        costs = _mean_costs([f" {' '.join(one)}" for one in tried], more, cost)
        best = int(costs.argmax())
        if costs[best] > costs[kept.index(suffix[place])]:
            suffix = tried[best]
    return f" {' '.join(suffix)}"


def words_of(prompts: Sequence[str]) -> list[str]:
    """Return the words of these prompts that stand in most of them, at most `MOST_WORDS`, most frequent first."""
    counts: Counter[str] = Counter()
    for prompt in prompts:
        counts.update(set(prompt.split()))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return ranked[:MOST_WORDS]


def _mean_costs(suffixes: Sequence[str], prompts: Sequence[str], cost: Cost) -> Array:
    """Return the mean cost over the prompts with each suffix behind them, (suffixes,)."""
    step = max(1, AT_ONCE // len(prompts))
    means = []
    for at in range(0, len(suffixes), step):
        some = suffixes[at : at + step]
        found = cost([prompt + suffix for suffix in some for prompt in prompts])
        means.append(found.reshape(len(some), len(prompts)).mean(axis=1))
    return np.concatenate(means)
