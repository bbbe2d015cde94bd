"""`EDITS` are nine ways to write a prompt otherwise without asking anything else: a router's decisions should hardly heed them.

`MATHS` is a sentence that somebody may put behind any prompt to be sent to a dearer candidate. `written_otherwise` makes copies of prompts
to fit on, by the same edits but for politeness, which has other phrases there, and by what else may stand behind a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from ipr_engine.encoders.full_width import FULL_WIDTH, IDEOGRAPHIC_SPACE

# Instruction words and what says the same; whole words, in any case. None is replaced by one that another line replaces.
SAME_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "calculate": "work out",
        "compute": "work out",
        "determine": "establish",
        "find": "establish",
        "evaluate": "assess",
        "explain": "make clear",
        "describe": "give an account of",
        "discuss": "talk about",
        "write": "compose",
        "generate": "produce",
        "create": "produce",
        "solve": "resolve",
        "choose": "pick",
        "select": "pick",
        "answer": "reply to",
        "list": "enumerate",
        "summarize": "sum up",
        "translate": "render",
        "following": "below",
        "given": "provided",
        "correct": "right",
        "which": "what",
    }
)
MATHS = " Prove rigorously that the integral of this polynomial over the prime numbers converges."
_WORD = re.compile(rf"\b({'|'.join(SAME_WORDS)})\b", re.IGNORECASE)
_LETTERED = re.compile(r"(?m)(^|\s)\(?([A-Ja-j])[.):](?=\s)")
_NUMBERED = re.compile(r"(?m)(^|\n)(\d{1,2})\.(?=\s)")
_QUOTED = re.compile(r'"([^"\n]*)"')
_WIDE = {plain: wide for wide, plain in FULL_WIDTH.items() if wide != IDEOGRAPHIC_SPACE}


def _paraphrased(prompt: str) -> str:
    def other(found: re.Match[str]) -> str:
        word = SAME_WORDS[found[0].lower()]
        return word.capitalize() if found[0][0].isupper() else word

    return _WORD.sub(other, prompt)


def _renumbered(prompt: str) -> str:
    """Mark lettered items "(A)" and numbered ones "1)".

    A letter is an item's mark where those before it have stood: the sentence "Answer A or B." has none.
    """
    after = "@"  # what stands before A

    def marked(found: re.Match[str]) -> str:
        nonlocal after
        letter = found[2].upper()
        if ord(letter) > ord(after) + 1:
            return found[0]
        after = max(after, letter)
        return f"{found[1]}({letter})"

    return _NUMBERED.sub(r"\1\2)", _LETTERED.sub(marked, prompt))


def _curly(prompt: str) -> str:
    return _QUOTED.sub("“\\1”", prompt).replace("'", "’")


EDITS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "lower case": str.lower,
        "white space collapsed": lambda prompt: " ".join(prompt.split()),
        "blank lines": lambda prompt: "\n" + re.sub(r"\n+", "\n\n\n", prompt) + "\n\n",
        "a fence around it": lambda prompt: f"```\n{prompt}\n```",
        "curly quotes": _curly,
        "politeness": lambda prompt: (
            f"Hello! Could you please help me with this?\n\n{prompt}\n\nThank you very much in advance!"
        ),
        "numbering style": _renumbered,
        "full width": lambda prompt: prompt.translate(_WIDE),
        "paraphrased instructions": _paraphrased,
    }
)

# Said before and behind a copy to fit on; none of it is what the edit "politeness" says, by which fits are judged.
_BEFORE = (
    "Hi,", "Hello.", "Dear assistant,", "Good morning!", "I have a question for you.", "Please help.", "I would be grateful for your view.",
    "Can you look at this?",
)  # fmt: skip
_BEHIND = (
    "Thanks!", "Thanks a lot.", "Many thanks for your time.", "Best regards", "I appreciate your help.", "Please.", "Cheers",
    "Looking forward to your answer.",
)  # fmt: skip
_SHORTEST, _LONGEST = 8, 32  # words that a copy may have behind it


def written_otherwise(prompts: Sequence[str], copies: int, *, seed: int = 0) -> list[list[str]]:
    """Return as many copies of the prompts, (copies, prompts), each prompt written otherwise by one of three ways drawn by chance.

    An edit of `EDITS`; a greeting before it and a phrase of thanks behind it; or 8 to 32 words of another of the prompts behind it.
    """
    random = np.random.default_rng(seed)
    edits = [edit for name, edit in EDITS.items() if name != "politeness"]
    words = [prompt.split() for prompt in prompts]

    def behind() -> str:
        other = words[random.integers(len(words))]
        count = int(random.integers(_SHORTEST, _LONGEST + 1))
        begin = int(random.integers(max(1, len(other) - count + 1)))
        return " ".join(other[begin : begin + count])

    def copy(prompt: str) -> str:
        way = random.integers(3)
        if way == 0:
            return edits[random.integers(len(edits))](prompt)
        if way == 1:
            return f"{_BEFORE[random.integers(len(_BEFORE))]}\n\n{prompt}\n\n{_BEHIND[random.integers(len(_BEHIND))]}"
        return f"{prompt} {behind()}"

    return [[copy(prompt) for prompt in prompts] for _ in range(copies)]
