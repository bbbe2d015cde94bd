"""A bundle and its parts as frozen objects. They hold; load.py checks what goes into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._files import sha256_hex
from ipr_engine.bundle.fields import canonical_json, fail
from ipr_engine.bundle.path_rows import PathRows
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.price import Price, price_numbers, says_more
from ipr_engine.errors import BundleFormatError
from ipr_engine.tokens.token_profile import TokenProfile

if TYPE_CHECKING:
    from ipr_engine.bundle.calibration import CalibrationMap, RuleConstants

Float32 = NDArray[np.float32]
MANIFEST = "bundle.json"
SHARED_TENSOR = "trunk"  # every other tensor of a head has a row per candidate


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An LLM that may be chosen.

    Attributes:
        context_window: tokens of prompt and output together, in its own count; None where not known.
        max_output_tokens: most output tokens of one answer; None where not known.
        tokenizer: the profile by which its own input tokens are estimated from a text (docs/tokens.md).
        token_ratio: its own tokens per token of the prompt encoder, > 0: its bill where no tokenizer is named, or a bill is given.
        performance: how fast it answered when it was measured, and at what energy; None where not known.
    """

    name: str
    family: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    token_ratio: float = 1.0
    features: tuple[str, ...] = ()
    latency_ms: float | None = None
    tokenizer: TokenProfile | None = None
    performance: Performance | None = None


@dataclass(frozen=True, kw_only=True)
class PriceList:
    """Prices of every candidate by name, as of `date` (YYYY-MM-DD)."""

    currency: str = "USD"
    date: str
    prices: Mapping[str, Price]

    def key(self, candidates: Sequence[Candidate], names: Sequence[str]) -> str:
        """Return the sha256 of the numbers that cost these candidates' tokens: prices, token ratios and tokenizers, not dates or names."""
        rows: dict[str, list[Any]] = {}
        for candidate in candidates:
            if candidate.name in names:
                price, tokenizer = self.prices[candidate.name], candidate.tokenizer
                numbers = (price.input_usd_per_1m, price.output_usd_per_1m, price.fixed_usd, candidate.token_ratio)
                own = () if tokenizer is None else (*tokenizer.coefficients, tokenizer.per_request)
                rows[candidate.name] = [
                    *map(float, numbers),
                    *([price_numbers(price)] if says_more(price) else []),
                    *own,
                ]
        return sha256_hex(canonical_json(rows, compact=True))


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A frozen prompt encoder as a bundle holds it, and `identity`, the hash of everything that shapes its output.

    Attributes:
        kind: "static" (a model2vec table), "transformer" or "concatenated".
        pooling, normalize: None of a concatenated one, whose parts have their own.
        files: role -> verified path. static: table, tokenizer, config. transformer: manifest (encoder.json of an export) and
            what it names; none when the model is referenced, to be found at load by its identity.
        dtype: "int8" or "bfloat16" where the heads read embeddings of that arithmetic; else None.
        name, revision: of a transformer: a hub id and its revision, or what the export was called.
        parts: of a concatenated one: ids of this bundle's encoders, in the order of their columns.
    """

    id: str
    kind: str
    dim: int
    max_tokens: int
    pooling: str | None
    normalize: bool | None
    identity: str
    files: Mapping[str, Path]
    dtype: str | None = None
    name: str | None = None
    revision: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """The prompts a head was fitted on.

    prompt_hashes: file of the hashes of each prompt and question (data/overlap.py), from schema_version 2 on.
    hash_key: id of the owner's key that they are hashed under, None for plain hashes, as before schema_version 5.
    """

    source: str
    prompts: int
    prompt_ids_sha256: str
    prompt_hashes: Path | None = None
    hash_key: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadsSpec:
    """Trained heads over one encoder; tensors as docs/decide.md, float32, read-only, a row per candidate.

    sha256: of their weights file.
    """

    id: str
    encoder: str
    outputs: tuple[str, ...]
    activation: str
    candidates: tuple[str, ...]
    rule_constants: RuleConstants | None
    fitted_on: FittedOn
    sha256: str
    tensors: Mapping[str, Float32] = field(repr=False)

    def in_order(self, candidates: tuple[str, ...]) -> HeadsSpec:
        """The same heads with their rows in this order of the same candidates."""
        if candidates == self.candidates:
            return self
        rows = [self.candidates.index(name) for name in candidates]
        tensors = {
            name: t if name == SHARED_TENSOR else np.ascontiguousarray(t[rows]) for name, t in self.tensors.items()
        }
        return replace(self, candidates=candidates, tensors=MappingProxyType(tensors))


@dataclass(frozen=True, kw_only=True, eq=False)
class SupportSpec:
    """Centroids (k, dim) of the fitted prompts and the (101,) percentiles of held-out distances to the nearest one."""

    encoder: str
    centroids: Float32 = field(repr=False)
    distances: Float32 = field(repr=False)

    @cached_property
    def key(self) -> str:
        """What a support is measured by: 16 hex digits of a sha256 over both arrays."""
        parts = (np.ascontiguousarray(part, "<f4").tobytes() for part in (self.centroids, self.distances))
        return sha256_hex(*parts)[:16]


@dataclass(frozen=True, kw_only=True)
class EscalationSpec:
    """Two tiers: the heads that decide first, and those asked again where its gap is small.

    heads: id of the second ones. gap: in quality units, >= 0: below it a decision is made again, unless the policy says its own.
    """

    heads: str
    gap: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BundleSpec:
    """What a verified bundle holds; `Bundle.load` reads one.

    Attributes:
        hash: the sha256 of its bundle.json. path: its folder.
        prices_sha256: of its price file.
        extra_files: by relative path.
        path_rows: None in bundles before schema_version 5, and where no outcomes were kept.
    """

    hash: str
    path: Path
    name: str
    created: str
    candidates: tuple[Candidate, ...]
    encoders: tuple[EncoderSpec, ...]
    heads: tuple[HeadsSpec, ...]
    prices: PriceList
    prices_sha256: str
    support: SupportSpec | None
    escalation: EscalationSpec | None
    calibrations: tuple[CalibrationMap, ...]
    extra_files: Mapping[str, Path]
    provenance: Mapping[str, Any]
    path_rows: PathRows | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Candidate names, in order."""
        return tuple(candidate.name for candidate in self.candidates)

    @cached_property
    def tie_rank(self) -> NDArray[np.int32]:
        """(models,) rank of each candidate's name, so that ties do not depend on the position."""
        return np.argsort(np.argsort(np.array(self.names))).astype(np.int32)

    @cached_property
    def quality_heads(self) -> HeadsSpec:
        """The heads a decision is made with: the first that cover every candidate, their rows in candidate order.

        Raises:
            BundleFormatError: no heads cover every candidate.
        """
        for heads in self.heads:
            if set(heads.candidates) == set(self.names):
                return heads.in_order(self.names)
        todo = "add heads for the missing candidates, or leave those out"
        fail(BundleFormatError, f"{self.path / MANIFEST}: heads", "one entry that covers every candidate", "none", todo)

    @cached_property
    def escalation_heads(self) -> HeadsSpec | None:
        """The heads that decide again where the first ones' gap is small, their rows in candidate order; None without."""
        if self.escalation is None:
            return None
        asked = self.escalation.heads
        return next(heads for heads in self.heads if heads.id == asked).in_order(self.names)

    def encoder(self, id: str) -> EncoderSpec:
        """The encoder of that id."""
        return next(encoder for encoder in self.encoders if encoder.id == id)

    def heads_key(self, names: Sequence[str]) -> str:
        """Return the sha256 of everything that predicts quality and tokens of these candidates: encoder, activation and their rows of
        the heads; of a two-tier bundle those of both heads, and the gap below which the second ones decide.

        Other candidates of the bundle do not enter: adding one leaves the maps of the others as they are.
        """
        parts = [*self._heads_bytes(self.quality_heads, names)]
        if self.escalation is not None and self.escalation_heads is not None:
            parts.append(f"escalation {float(self.escalation.gap).hex()}\n".encode())
            parts += self._heads_bytes(self.escalation_heads, names)
        return sha256_hex(*parts)

    def _heads_bytes(self, heads: HeadsSpec, names: Sequence[str]) -> Iterator[bytes]:
        yield f"{self.encoder(heads.encoder).identity}\n{heads.activation}\n".encode()
        rows = [heads.candidates.index(name) for name in sorted(names)]
        for name, tensor in sorted(heads.tensors.items()):
            part = tensor if name == SHARED_TENSOR else tensor[rows]
            yield f"{name} {part.shape}\n".encode() + np.ascontiguousarray(part).tobytes()

    def __repr__(self) -> str:
        return f"<Bundle {self.name!r} {self.hash[:12]}, {len(self.candidates)} candidates, {self.path}>"
