"""These peers embed with another library and decide in numpy or torch."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import BackendUnavailableError, InvalidInputError

from .registry import PeerTarget, Setup

Floats = npt.NDArray[np.float32]
FILES = {"table": "model.safetensors", "tokenizer": "tokenizer.json", "config": "config.json"}


def model2vec_of(files: Mapping[str, Path]) -> Any:
    """Open a static encoder's files (`EncoderSpec.files`) by model2vec's own class."""
    with tempfile.TemporaryDirectory() as folder:
        for role, name in FILES.items():
            (Path(folder) / name).write_bytes(files[role].read_bytes())
        return importlib.import_module("model2vec").StaticModel.from_pretrained(folder)


def _relu(z: Floats) -> Floats:
    return np.maximum(z, 0)


def _silu(z: Floats) -> Floats:
    return np.asarray(z / (1 + np.exp(-z)), np.float32)


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"relu": _relu, "silu": _silu}


class Rates:
    """`Rates` is a policy as numpy takes it: cost = fixed + in_rate * billed + out_rate * tokens; the rule's coefficients and the worth."""

    def __init__(self, setup: Setup) -> None:
        names = setup.engine.bundle.names
        rates = setup.policy.folded
        if rates.tier_above is not None:
            raise InvalidInputError("prices: the peers know one price tier, got a bundle with more")
        self.in_rate, self.out_rate = rates.in_rate.astype(np.float32), rates.out_rate.astype(np.float32)
        self.fixed = rates.fixed_usd.astype(np.float32)
        self.allowed = np.array([name in setup.policy.allowed for name in names])
        rule = setup.policy.coefficients
        self.alpha_hi, self.alpha_lo, self.offset = rule.alpha_hi, rule.alpha_lo, rule.offset
        self.worth = setup.policy.worth
        # A gift to the peers, whose tokenizers do not return it.
        prompts = list(setup.prompts)
        made = setup.engine.route_many(prompts, setup.policy, on_error="status")
        bills = rates.counted(made.billed_tokens, made.own_tokens).astype(np.float32)
        self.billed = dict(zip(prompts, bills, strict=True))

    def threshold(self, hi: Any, lo: Any) -> Any:
        """Return what a quality must reach, of the highest and the lowest of the allowed ones; numpy's and torch's numbers alike."""
        return min(self.alpha_hi * hi + self.alpha_lo * lo + self.offset, hi)

    def bill(self, prompt: str) -> Floats:
        """Return (1,) or (models,), as the engine bills the prompt; guessed for one that it has not been told."""
        known = self.billed.get(prompt)
        return np.array([max(1, len(prompt) // 4)], np.float32) if known is None else known


class Model2VecNumpy(PeerTarget):
    """A `Model2VecNumpy` is what one would write with model2vec and numpy on the engine's own table and heads, without adapters."""

    name = "model2vec"

    def __init__(self, setup: Setup) -> None:
        spec = setup.engine.bundle.encoder(setup.engine.bundle.quality_heads.encoder)
        if spec.kind != "static":
            raise BackendUnavailableError(f"written for a bundle whose heads read a static table, got {spec.kind}")
        self.model = model2vec_of(spec.files)
        self.names, self.rates = setup.engine.bundle.names, Rates(setup)
        heads = setup.engine.bundle.quality_heads
        tensors = heads.tensors
        if {"down", "tree_leaf"} & set(tensors) or "len_skip" not in tensors or heads.activation not in ACTIVATIONS:
            raise BackendUnavailableError(
                "written for relu or silu heads that predict tokens and have no adapters and no trees"
            )
        self.activation = ACTIVATIONS[heads.activation]
        models, dim = tensors["len_skip"].shape
        skip = tensors.get("skip", np.zeros((models, dim), np.float32))
        trunk = tensors.get("trunk", np.zeros((0, dim), np.float32))
        # One product computes everything that multiplies x.
        self.by_x = np.ascontiguousarray(np.concatenate([skip, tensors["len_skip"], trunk]).T)
        self.bias, self.len_bias = tensors["bias"], tensors["len_bias"]
        self.len_cap = tensors.get("len_cap", np.full(models, np.inf, np.float32))
        self.out = tensors.get("out")
        identity = tensors.get("identity", np.zeros((models, len(trunk)), np.float32))
        # Where every candidate has the same hidden layer, one product of it serves all of them.
        self.shared = bool((identity == identity[:1]).all())
        self.identity = identity[0] if self.shared else identity

    def choose(self, prompt: str) -> str:
        x = self.model.encode([prompt])[0].astype(np.float32)
        models = len(self.bias)
        dots = x @ self.by_x
        logit = dots[:models] + self.bias
        if self.out is not None:
            hidden = self.activation(dots[2 * models :] + self.identity)
            logit = logit + (self.out @ hidden if self.shared else (self.out * hidden).sum(axis=1))
        quality = 1 / (1 + np.exp(-logit))
        tokens = np.minimum(np.exp(dots[models : 2 * models] + self.len_bias), self.len_cap)
        rates = self.rates
        cost = rates.fixed + (rates.in_rate * rates.bill(prompt) + rates.out_rate * tokens)
        seen = quality[rates.allowed]
        threshold = rates.threshold(seen.max(), seen.min())
        objective = cost - rates.worth * quality
        return self.names[int(np.where(rates.allowed & (quality >= threshold), objective, np.inf).argmin())]


class TorchHeads:
    """`TorchHeads` are linear quality and token heads in torch, random weights: one product, then the rule."""

    def __init__(self, setup: Setup, dim: int) -> None:
        self.torch = importlib.import_module("torch")
        torch, rng = self.torch, np.random.default_rng(0)
        self.names, rates = setup.engine.bundle.names, Rates(setup)
        models = len(self.names)
        self.rates, self.models = rates, models
        self.by_x = torch.from_numpy((rng.standard_normal((dim, 2 * models)) / np.sqrt(dim)).astype(np.float32))
        self.bias = torch.cat([torch.zeros(models), torch.full((models,), 5.0)])
        self.in_rate, self.out_rate = torch.from_numpy(rates.in_rate), torch.from_numpy(rates.out_rate)
        self.fixed, self.allowed = torch.from_numpy(rates.fixed), torch.from_numpy(rates.allowed)

    def choose(self, x: Any, prompt: str) -> str:
        """Choose for x, a (dim,) float32 tensor."""
        torch, rates = self.torch, self.rates
        both = x @ self.by_x + self.bias
        quality, tokens = torch.sigmoid(both[: self.models]), torch.exp(both[self.models :])
        cost = self.fixed + (self.in_rate * torch.from_numpy(rates.bill(prompt)) + self.out_rate * tokens)
        seen = quality[self.allowed]
        feasible = self.allowed & (quality >= rates.threshold(seen.max(), seen.min()))
        return self.names[int(torch.where(feasible, cost - rates.worth * quality, torch.inf).argmin())]


class SentenceTransformersTorch(PeerTarget):
    """This peer runs sentence-transformers' `encode` on MiniLM, heads in torch."""

    name = "sentence-transformers"

    def __init__(self, setup: Setup) -> None:
        self.torch = importlib.import_module("torch")
        package = importlib.import_module("sentence_transformers")
        self.model = package.SentenceTransformer(setup.minilm, device="cpu")
        probe = self.model.encode(["a"], convert_to_tensor=True, show_progress_bar=False)
        self.heads = TorchHeads(setup, int(probe.shape[1]))

    def choose(self, prompt: str) -> str:
        with self.torch.inference_mode():
            x = self.model.encode([prompt], convert_to_tensor=True, show_progress_bar=False)[0]
            return self.heads.choose(x, prompt)


class TransformersTorch(PeerTarget):
    """This peer runs transformers' eager model on MiniLM, mean pooling and normalisation by hand, heads in torch."""

    name = "transformers"

    def __init__(self, setup: Setup) -> None:
        self.torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(setup.minilm)
        self.model = transformers.AutoModel.from_pretrained(setup.minilm).eval()
        self.heads = TorchHeads(setup, int(self.model.config.hidden_size))

    def choose(self, prompt: str) -> str:
        with self.torch.inference_mode():
            inputs = self.tokenizer(prompt, truncation=True, max_length=512, return_tensors="pt")
            x = self.model(**inputs).last_hidden_state[0].mean(dim=0)
            return self.heads.choose(x / x.norm(), prompt)
