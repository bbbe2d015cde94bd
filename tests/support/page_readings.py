"""What the tests of the server's page share: the prompts that were routed, and how the page is read."""

from __future__ import annotations

import re
from typing import Any

from ipr_engine import Engine

TAU = 0.2
LEFT_OUT = "mistral-large-2407"
PROMPTS = (
    "What is 17 * 23?",
    "Prove that there are infinitely many primes, then write a sieve in Haskell.",
    "Translate 'good morning' into Greek.",
    "def f(x):\n    return [3 * i for i in range(x)]\nprint(f(4))\nWhat does it print?",
    "Find the number of integer solutions of a^2 + b^2 <= 29 with a < 3.",
    "If Anna has 12 apples and gives 5 away, how many are left?",
)
WIDE, NARROW = 1400, 380
LIVE = "document.getElementById('live').textContent === 'Live.' && !seen.recent.unread"
KEY = "a-key-of-one-tenant"


def asking(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": prompt}], **more}


def figures(text: str) -> list[float]:
    """Return the numbers of a text, USD without their sign."""
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", text)]


def routed(engine: Engine, tau: float) -> list[Any]:
    policy = engine.policy(tau=tau, exclude=[LEFT_OUT])
    return [engine.route(prompt, policy) for prompt in PROMPTS]
