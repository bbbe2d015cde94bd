"""`EDITS` are nine ways to write a prompt otherwise without asking anything else: a router's decisions should hardly heed them.

`MATHS` is a sentence that somebody may put behind any prompt to be sent to a dearer candidate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

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
_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def _paraphrased(prompt: str) -> str:
    def other(found: re.Match[str]) -> str:
        word = SAME_WORDS[found[0].lower()]
        return word.capitalize() if found[0][0].isupper() else word

    return _WORD.sub(other, prompt)


def _renumbered(prompt: str) -> str:
    return _NUMBERED.sub(r"\1\2)", _LETTERED.sub(lambda found: f"{found[1]}({found[2].upper()})", prompt))


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
