"""Question keys of a whole source: the first letters of each prompt that are not boilerplate.

A key of the first 120 letters and digits says what a prompt asks, unless the prompt opens with a template or a system
preamble: then hundreds of different questions would have one key. An opening that many different prompts share is
boilerplate; what follows it is the question.
"""

from __future__ import annotations

from collections.abc import Sequence

from ipr_engine.data.outcomes import KEY_CHARACTERS, question_key

# Different prompts that make what they share boilerplate: a twentieth of the source, but at least so many and at most so many.
# Fewer may be one document under several instructions, or one question reworded: those belong together.
FEWEST_SHARING, MOST_SHARING, SHARE_SHARING = 20, 40, 0.05


def boilerplate_prompts(prompts: int) -> float:
    """How many different prompts of a source of so many must share a stretch of text for it to be boilerplate."""
    return max(FEWEST_SHARING, min(SHARE_SHARING * prompts, MOST_SHARING))


def question_keys(prompts: Sequence[str]) -> tuple[str, ...]:
    """Key of every prompt of one source: `question_key` of what follows its boilerplate opening.

    Notes:
        A prompt whose opening is not shared has the key that `question_key` gives it, whatever the source. One that is
        nothing but boilerplate keeps its opening as key.

    Example:
        >>> opening = "Answer with one letter and nothing else. " * 4
        >>> question_keys([f"{opening} What is {n} + {n}?" for n in range(30)])[7]
        '77'
    """
    keys = [question_key(prompt) for prompt in prompts]
    enough = boilerplate_prompts(len(prompts))
    waiting = [rows for rows in _by_key(keys, range(len(keys))) if len(rows) >= enough]
    letters: dict[int, str] = {}
    skipped = dict.fromkeys((row for rows in waiting for row in rows), 0)
    while waiting:
        rows = waiting.pop()
        for row in rows:
            letters.setdefault(row, _letters(prompts[row]))
        rest = {letters[row][skipped[row] :] for row in rows}
        if len(rest) < enough:
            continue
        least, greatest = min(rest), max(rest)  # what these two begin with, all do
        ends = (i for i, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b)
        shared = next(ends, len(least))
        going = [row for row in rows if len(letters[row]) > skipped[row] + shared]
        for row in going:
            skipped[row] += shared
            keys[row] = letters[row][skipped[row] : skipped[row] + KEY_CHARACTERS]
        waiting += [part for part in _by_key(keys, going) if enough <= len(part) and shared > 0]
    return tuple(keys)


def _by_key(keys: Sequence[str], rows: Sequence[int]) -> list[list[int]]:
    """Rows of one key together; keys of fewer than KEY_CHARACTERS are whole prompts, and stay out."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if len(keys[row]) == KEY_CHARACTERS:
            found.setdefault(keys[row], []).append(row)
    return list(found.values())


def _letters(prompt: str) -> str:
    return "".join(character.lower() for character in prompt if character.isalnum())
