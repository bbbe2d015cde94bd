"""The eleven candidates of the default bundle and their prices: public facts, each with its basis."""

from __future__ import annotations

from dataclasses import dataclass

PRICES_DATE = "2024-12-31"  # none is newer; the date of each, where known, stands in its basis
LIST_PRICE = "list price as of {date} in the outcome source, check before quoting"


@dataclass(frozen=True)
class DefaultCandidate:
    """One candidate.

    Attributes:
        source: its name in the outcome source.
        context_window: tokens, from the provider's public model page; null where unsure.
        features: what the provider's public model page offers through its interface.
        input_usd_per_1m, output_usd_per_1m: list price; open models at a hosting provider's.
        as_of: the date of that price in the outcome source.
    """

    name: str
    source: str
    family: str
    provider: str
    context_window: int | None
    features: tuple[str, ...]
    input_usd_per_1m: float
    output_usd_per_1m: float
    as_of: str

    @property
    def basis(self) -> str:
        return LIST_PRICE.format(date=self.as_of)


DEFAULT_CANDIDATES = (
    DefaultCandidate(
        "claude-3-5-sonnet-20241022",
        "claude-3-5-sonnet-20241022",
        "Claude",
        "Anthropic",
        200_000,
        ("tools", "vision"),
        3.0,
        15.0,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "claude-3-5-haiku-20241022",
        "claude-3-5-haiku-20241022",
        "Claude",
        "Anthropic",
        200_000,
        ("tools",),
        0.8,
        4.0,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "claude-3-haiku-20240307",
        "claude-3-haiku-20240307",
        "Claude",
        "Anthropic",
        200_000,
        ("tools", "vision"),
        0.25,
        1.25,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "gpt-4o-2024-08-06",
        "gpt-4o-2024-08-06",
        "GPT",
        "OpenAI",
        128_000,
        ("tools", "vision"),
        2.5,
        10.0,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "gpt-4o-mini-2024-07-18",
        "gpt-4o-mini-2024-07-18",
        "GPT",
        "OpenAI",
        128_000,
        ("tools", "vision"),
        0.15,
        0.6,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "gemini-1.5-pro",
        "gemini-1.5-pro",
        "Gemini",
        "Google",
        2_097_152,
        ("tools", "vision"),
        1.25,
        5.0,
        "October 2024",
    ),
    DefaultCandidate(
        "gemini-1.5-flash",
        "gemini-1.5-flash",
        "Gemini",
        "Google",
        1_048_576,
        ("tools", "vision"),
        0.075,
        0.3,
        "August 2024",
    ),
    DefaultCandidate(
        "llama-3.1-405b-instruct",
        "Meta-Llama-3.1-405B-Instruct",
        "Llama",
        "Meta (open weights, hosted)",
        131_072,
        ("tools",),
        3.0,
        3.0,
        "2024 (undated; hosted at Fireworks)",
    ),
    DefaultCandidate(
        "llama-3.1-70b-instruct",
        "Meta-Llama-3.1-70B-Instruct",
        "Llama",
        "Meta (open weights, hosted)",
        131_072,
        ("tools",),
        0.9,
        0.9,
        "2024 (undated; hosted at Together or Fireworks)",
    ),
    DefaultCandidate(
        "llama-3.1-8b-instruct",
        "Meta-Llama-3.1-8B-Instruct",
        "Llama",
        "Meta (open weights, hosted)",
        131_072,
        ("tools",),
        0.2,
        0.2,
        "2024 (undated)",
    ),
    DefaultCandidate(
        "mistral-large-2407",
        "Mistral-Large-2",
        "Mistral",
        "Mistral AI",
        128_000,
        ("tools",),
        3.0,
        9.0,
        "July 2024",
    ),
)
