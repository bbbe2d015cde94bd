"""This file defines a bundle and its parts as frozen objects. `Bundle.load` checks what goes into them; they check nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._files import sha256_hex
from ipr_engine._read_only import read_only
from ipr_engine.bundle.calibration import CalibrationMap, RuleConstants
from ipr_engine.bundle.conversation import ALL, Conversation
from ipr_engine.bundle.fields import canonical_json, fail
from ipr_engine.bundle.head_rows import of_candidates, part_of
from ipr_engine.bundle.performance import Performance
from ipr_engine.bundle.price import Price, price_numbers, says_more
from ipr_engine.errors import BundleFormatError
from ipr_engine.tokens.token_profile import TokenProfile

Float32 = NDArray[np.float32]
MANIFEST = "bundle.json"
OUTCOME_STEPS, NOT_JUDGED = 254, 255  # of `PathRows.outcome`
MOST_ROWS = 4096
# The file counts output tokens in 64s: float16 ends at 65,504, and answers may be longer than that. A power of two costs no digit.
TOKENS_UNIT = np.float32(64)
MOST_TOKENS = 65504 * 64


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A `Candidate` is an LLM that may be chosen.

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
    """A `PriceList` holds the prices of every candidate by name, as they were on `date` (YYYY-MM-DD)."""

    currency: str = "USD"
    date: str
    prices: Mapping[str, Price]

    def key(self, candidates: Sequence[Candidate], names: Sequence[str]) -> str:
        """Return the sha256 of the numbers that cost these candidates' tokens: prices, token ratios and tokenizers, not dates or names."""
        rows: dict[str, list[Any]] = {}
        for candidate in candidates:
            if candidate.name in names:
                price, tokenizer = self.prices[candidate.name], candidate.tokenizer
                # Keys of old bundles stay: only a price that says more than these adds its whole form.
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
    """An `EncoderSpec` is a frozen prompt encoder of a bundle.

    Attributes:
        kind: "static" (a model2vec table), "transformer", "task" (what callers say a prompt is for), "surface" (what texts look like)
            or "concatenated".
        identity: the hash of everything that shapes its output.
        max_tokens: 0 of tasks and surface features, which read no tokens.
        pooling, normalize: None of those, and of a concatenated one, whose parts have their own.
        files: role -> verified path. static: table, tokenizer, config. transformer: manifest (encoder.json of an export) and
            what it names; surface: lexicon; none when the model is referenced, to be found at load by its identity.
        dtype: "int8", "bfloat16" or "bfloat16-mixed" where the heads read embeddings of that arithmetic; else None.
        name, revision: of a transformer: a hub id and its revision, or what the export was called.
        parts: of a concatenated one: ids of this bundle's encoders, in the order of their columns.
        surface_dim: how many of its last columns are surface features, 0 without.
        tasks: names of the tasks that have a column each, before the surface features; of a concatenated one those of its part.
        head_tokens: of a table: how many tokens of a prompt's beginning have a mean of their own; 0: none.
        head_dim: how many columns before the tasks are that mean, 0 without.
        fold_width: of a table: whether full width forms are read as the ASCII that they stand for.
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
    surface_dim: int = 0
    tasks: tuple[str, ...] = ()
    head_tokens: int = 0
    head_dim: int = 0
    fold_width: bool = False

    @property
    def embedding_dim(self) -> int:
        """How many leading columns are embeddings: distances are measured on them."""
        return self.dim - len(self.tasks) - self.surface_dim

    @property
    def whole_dim(self) -> int:
        """How many leading columns are embeddings of the whole prompt: support is measured on them."""
        return self.embedding_dim - self.head_dim

    @cached_property
    def task_columns(self) -> Mapping[str, int]:
        """Task -> its column in x."""
        return read_only({name: self.embedding_dim + at for at, name in enumerate(self.tasks)})


@dataclass(frozen=True, kw_only=True)
class FittedOn:
    """A `FittedOn` describes the prompts a head was fitted on.

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
    """A `HeadsSpec` holds trained heads over one encoder; tensors as docs/formats.md, read-only, a row per candidate (`head_rows`).

    sha256: of their weights file. conversation: what of several turns of a user they are given.
    """

    id: str
    encoder: str
    outputs: tuple[str, ...]
    activation: str
    candidates: tuple[str, ...]
    rule_constants: RuleConstants | None
    fitted_on: FittedOn
    sha256: str
    tensors: Mapping[str, NDArray[Any]] = field(repr=False)
    conversation: Conversation = ALL

    def in_order(self, candidates: tuple[str, ...]) -> HeadsSpec:
        """Return the same heads with their rows in this order of the same candidates."""
        if candidates == self.candidates:
            return self
        rows = [self.candidates.index(name) for name in candidates]
        return replace(self, candidates=candidates, tensors=read_only(of_candidates(self.tensors, rows)))


@dataclass(frozen=True, kw_only=True, eq=False)
class SupportSpec:
    """A `SupportSpec` holds centroids (k, dim) of the fitted prompts, and (101,) percentiles of held-out distances to the nearest one."""

    encoder: str
    centroids: Float32 = field(repr=False)
    distances: Float32 = field(repr=False)

    @cached_property
    def key(self) -> str:
        """Return 16 hex digits of the sha256 over both arrays: they name what a support was measured by."""
        parts = (np.ascontiguousarray(part, "<f4").tobytes() for part in (self.centroids, self.distances))
        return sha256_hex(*parts)[:16]


@dataclass(frozen=True, kw_only=True)
class EscalationSpec:
    """An `EscalationSpec` names the heads that decide first, and those asked again where the first ones' gap is small.

    heads: id of the second ones. gap: in quality units, >= 0: below it a decision is made again, unless the policy says its own.
    """

    heads: str
    gap: float


@dataclass(frozen=True, kw_only=True)
class UnsupportedDefault:
    """An `UnsupportedDefault` says who answers prompts unlike the fitting data where a policy says nothing of them.

    min_support: in (0, 1]: prompts of less support are meant. model: the candidate that answers them.
    """

    min_support: float
    model: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PathRows:
    """`PathRows` hold fitting prompts in random order, of which tau's path of any candidate set is made (ipr_engine/policy/tau_path.py).

    They hold no prompt, no id and no hash. All arrays have a column per candidate of `candidates`.

    Attributes:
        candidates: those that have a column, in the bundle's order; one added without outcomes on these prompts has none.
        quality: (rows, models) float16 in [0, 1], predicted out of fold.
        tokens_out: (rows, models) float32 >= 0, predicted output tokens.
        outcome: (rows, models) uint8, realised quality in `OUTCOME_STEPS`ths; `NOT_JUDGED` where not judged.
        billed_tokens: (rows,) uint32, by the bundle's tokenizer.
        tokens_in: (rows, models) float32, input tokens by each candidate's own count, as `Decision.tokens_in`; None where no candidate
            named its tokenizer when they were drawn: then own tokens are billed_tokens times token_ratio.
        again_quality, again_tokens_out: the second heads' predictions on the same rows; None in a bundle of one tier, and in
            one of two tiers whose bundles were not fitted on the same prompts: then the rows speak of the first heads alone.
        heads: sha256 of the weights that predict, of both tiers where `again_quality` is there.
    """

    candidates: tuple[str, ...]
    quality: NDArray[np.float16] = field(repr=False)
    tokens_out: Float32 = field(repr=False)
    outcome: NDArray[np.uint8] = field(repr=False)
    billed_tokens: NDArray[np.uint32] = field(repr=False)
    tokens_in: Float32 | None = field(default=None, repr=False)
    again_quality: NDArray[np.float16] | None = field(default=None, repr=False)
    again_tokens_out: Float32 | None = field(default=None, repr=False)
    heads: tuple[str, ...]

    def without_rows(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of these names that have no column: a path of a set with one of them is stale."""
        return tuple(name for name in names if name not in self.candidates)

    def realised(self) -> NDArray[np.float64]:
        """Return (rows, models) outcomes in [0, 1], NaN where not judged."""
        return np.where(self.outcome == NOT_JUDGED, np.nan, self.outcome / OUTCOME_STEPS)

    def of(self, names: Sequence[str]) -> PathRows:
        """Return the same rows with the columns of these candidates, in this order. KeyError for one without a column."""
        position = {name: column for column, name in enumerate(self.candidates)}
        columns = [position[name] for name in names]

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(values[:, columns])

        return replace(
            self,
            candidates=tuple(names),
            quality=taken(self.quality),
            tokens_out=taken(self.tokens_out),
            outcome=taken(self.outcome),
            tokens_in=None if self.tokens_in is None else taken(self.tokens_in),
            again_quality=None if self.again_quality is None else taken(self.again_quality),
            again_tokens_out=None if self.again_tokens_out is None else taken(self.again_tokens_out),
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class BundleSpec:
    """A `BundleSpec` holds the content of a verified bundle; `Bundle.load` reads one.

    Attributes:
        hash: the sha256 of its bundle.json. path: its folder.
        prices_sha256: of its price file.
        extra_files: by relative path.
        path_rows: None in bundles before schema_version 5, and where no outcomes were kept.
        unsupported: None where the bundle leaves it to the policy.
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
    unsupported: UnsupportedDefault | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The candidates' names, in order."""
        return tuple(candidate.name for candidate in self.candidates)

    @cached_property
    def tie_rank(self) -> NDArray[np.int32]:
        """Return (models,) ranks of the candidates' names, so that ties do not depend on the position."""
        # The argsort of an argsort gives each element's rank.
        return np.argsort(np.argsort(np.array(self.names))).astype(np.int32)

    @cached_property
    def quality_heads(self) -> HeadsSpec:
        """The heads a decision is made with: the first that cover every candidate, their rows in candidate order.

        Raises:
            BundleFormatError: no heads cover every candidate.
        """
        for heads in self.heads:
            # Heads may be written in another order than the candidates stand.
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

    @cached_property
    def tasks(self) -> frozenset[str]:
        """The tasks that the heads which decide, first or second, tell apart; empty where their encoders have none."""
        deciding = (self.quality_heads, self.escalation_heads)
        return frozenset(name for heads in deciding if heads is not None for name in self.encoder(heads.encoder).tasks)

    def encoder(self, id: str) -> EncoderSpec:
        """Return the encoder of that id."""
        return next(encoder for encoder in self.encoders if encoder.id == id)

    def heads_key(self, names: Sequence[str]) -> str:
        """Return the sha256 of everything that predicts quality and tokens of these candidates: encoder, activation and their rows of
        the heads; of a two-tier bundle those of both heads, and the gap below which the second ones decide.

        Other candidates of the bundle do not enter: adding one leaves the maps of the others as they are.
        """
        # Calibration maps carry this key: hashing anything else, or in another order, makes all of them stale.
        parts = [*self._heads_bytes(self.quality_heads, names)]
        if self.escalation is not None and self.escalation_heads is not None:
            parts.append(f"escalation {float(self.escalation.gap).hex()}\n".encode())
            parts += self._heads_bytes(self.escalation_heads, names)
        return sha256_hex(*parts)

    def _heads_bytes(self, heads: HeadsSpec, names: Sequence[str]) -> Iterator[bytes]:
        """Yield what the predictions of these candidates depend on, in an order that does not depend on the bundle's."""
        yield f"{self.encoder(heads.encoder).identity}\n{heads.activation}\n".encode()
        rows = [heads.candidates.index(name) for name in sorted(names)]
        for name, tensor in sorted(heads.tensors.items()):
            part = part_of(name, tensor, rows)
            yield f"{name} {part.shape}\n".encode() + np.ascontiguousarray(part).tobytes()

    def __repr__(self) -> str:
        return f"<Bundle {self.name!r} {self.hash[:12]}, {len(self.candidates)} candidates, {self.path}>"
