"""These peers are routers themselves."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from ipr_engine.evaluation.other_routers import load_tier_predictor

from .registry import PeerTarget, Setup

EXAMPLES = 5  # utterances a route: what its documentation shows


class SemanticRouter(PeerTarget):
    """aurelio's semantic-router (1.x) takes the route whose example utterances lie nearest, on a local encoder."""

    name = "semantic-router"

    def __init__(self, setup: Setup) -> None:
        package, routers = (importlib.import_module(n) for n in ("semantic_router", "semantic_router.routers"))
        encoders = importlib.import_module("semantic_router.encoders")
        prompts, names = setup.prompts, setup.candidates
        routes = [
            package.Route(
                name=name,
                utterances=[prompts[(EXAMPLES * k + i) % len(prompts)][:200] + f" ({k})" for i in range(EXAMPLES)],
            )
            for k, name in enumerate(names)
        ]
        encoder = encoders.HuggingFaceEncoder(name=setup.minilm, device="cpu")
        self.router = routers.IndexedRouter(encoder=encoder, routes=routes)

    def choose(self, prompt: str) -> str:
        return str(self.router(prompt).name)


class LiteLlmHeuristics(PeerTarget):
    """LiteLLM's complexity router runs with classifier_type "heuristic": local, no model."""

    name = "litellm"

    def __init__(self, setup: Setup) -> None:
        # Without this setting the import fetches a price list, and tries again beside the run.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        litellm = importlib.import_module("litellm")
        ranked = setup.by_price
        tiers = dict(zip(("SIMPLE", "MEDIUM", "COMPLEX", "REASONING"), _spread(ranked), strict=True))
        router = litellm.Router(
            model_list=[
                *(
                    {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "never used"}}
                    for name in ranked
                ),
                {
                    "model_name": "auto",
                    "litellm_params": {
                        "model": "auto_router/complexity_router",
                        "complexity_router_config": {"classifier_type": "heuristic", "tiers": tiers},
                        "complexity_router_default_model": ranked[-1],
                    },
                },
            ]
        )
        self.router = router.complexity_routers["auto"][0].strategy

    def choose(self, prompt: str) -> str:
        tier, _, _ = self.router.classify(prompt)
        return str(self.router.get_model_for_tier(tier))


class LiteLlmTierPredictor(PeerTarget):
    """LiteLLM's `heuristic_v2` runs: its classifier, and the table of expected successes that its wheel brings."""

    name = "litellm-heuristic-v2"

    def __init__(self, setup: Setup) -> None:
        self.required_tier = load_tier_predictor("the peer litellm-heuristic-v2")
        self.tiers = _spread(setup.by_price)

    def choose(self, prompt: str) -> str:
        return self.tiers[self.required_tier(prompt) - 1]


def _spread(ranked: Sequence[str]) -> list[str]:
    """Return four candidates of those ranked by price, evenly spread, cheapest first: one a tier."""
    return [ranked[round(share * (len(ranked) - 1) / 3)] for share in range(4)]


class RouteLlmBert(PeerTarget):
    """RouteLLM's BERTRouter is the one of its routers that needs no network once it has a checkpoint."""

    name = "routellm"

    def __init__(self, setup: Setup) -> None:
        with _placeholder_key("OPENAI_API_KEY"):  # importing the package makes a client, which is never used
            routers = importlib.import_module("routellm.routers.routers")
        self.router = routers.BERTRouter(setup.minilm)
        self.router.model.eval()
        self.pair = SimpleNamespace(strong=setup.by_price[-1], weak=setup.by_price[0])

    def choose(self, prompt: str) -> str:
        return str(self.router.route(prompt, 0.5, self.pair))


@contextlib.contextmanager
def _placeholder_key(name: str) -> Iterator[None]:
    if name in os.environ:
        yield
        return
    os.environ[name] = "placeholder"
    try:
        yield
    finally:
        del os.environ[name]
