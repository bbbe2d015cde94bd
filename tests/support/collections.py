"""Plans and prompts of small collections, against a `PaidServer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.provider import Provider, ProviderLimits
from ipr_engine.collection.question import Question

FAST = ProviderLimits(concurrency=8, timeout_s=5.0, retries=3)


def candidate(name: str = "plain", **more: Any) -> dict[str, Any]:
    """Return the entry of a candidate, which is called as its model unless `model` says otherwise."""
    entry = {"name": name, "family": "f", "provider": "paid", "input_usd_per_1m": 1.0, "output_usd_per_1m": 2.0}
    return entry | {"max_tokens": 16} | more


def plan_for(folder: Path, base_url: str, *candidates: dict[str, Any], **more: Any) -> CollectionPlan:
    """Return a plan whose ledger and tables lie in `folder`."""
    settings: dict[str, Any] = {
        "prompts": "prompts.jsonl",
        "candidates": candidates or (candidate(),),
        "prices_date": "2026-11-29",
        "providers": {"paid": Provider(base_url=base_url, limits=FAST)},
        "budget_usd": 1.0,
        "format": "jsonl",
        "path": str(folder / "plan.yaml"),
    }
    return CollectionPlan(**settings | more)


def questions(count: int, text: str = "What is {} + 1?") -> list[Question]:
    """Return so many prompts."""
    return [
        Question(
            prompt_id=f"q{n:05d}",
            prompt=text.format(n),
            body={"messages": [{"role": "user", "content": text.format(n)}]},
        )
        for n in range(count)
    ]
