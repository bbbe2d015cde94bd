"""`EmbeddedPrompts` are embedded once for an engine, by every encoder that its bundle reads, and decided on as often as one likes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from ipr_engine._C import count_texts
from ipr_engine.bundle import Bundle
from ipr_engine.data import Outcomes
from ipr_engine.data.embeddings import EmbeddingCache, embed_prompts
from ipr_engine.data.task_rows import task_rows
from ipr_engine.decide.contract import DecidePlan
from ipr_engine.decision.decisions import Decisions
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.task_columns import mark_tasks
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import PolicyOptions
from ipr_engine.prompts.parsed import bill_floors
from ipr_engine.request.route_request import RouteOptions


class DecidingEngine(Protocol):
    """A `DecidingEngine` has the part of an engine that embedded prompts need."""

    @property
    def bundle(self) -> Bundle: ...

    @property
    def encoder(self) -> Encoder: ...

    @property
    def second_encoder(self) -> Encoder | None: ...

    @property
    def plan(self) -> DecidePlan: ...

    def policy(self, **options: Unpack[PolicyOptions]) -> Policy: ...

    def decide(
        self,
        x: Encoded,
        policy: Policy | None = None,
        *,
        second: Encoded | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decisions: ...


@dataclass(frozen=True, eq=False)
class EmbeddedPrompts:
    """`EmbeddedPrompts` are embedded for an engine.

    `decide` gives what `engine.route` would, the second heads of a two-tier bundle included.

    Attributes:
        first: by the encoder of the deciding heads. second: of every prompt, by the second encoder of a two-tier bundle; else None.
    """

    engine: DecidingEngine
    first: Encoded
    second: Encoded | None

    def __len__(self) -> int:
        return len(self.first)

    @property
    def embedding(self) -> npt.NDArray[np.float64]:
        """x of the first encoder without tasks and surface features, (prompts, columns): baselines measure distances in it."""
        bundle = self.engine.bundle
        spec = bundle.encoder(bundle.quality_heads.encoder)
        return np.asarray(self.first.x, np.float64)[:, : spec.embedding_dim]

    def decide(self, policy: Policy | None = None, **options: Unpack[RouteOptions]) -> Decisions:
        """Decide on all of them; the arguments are those of `Engine.decide`."""
        return self.engine.decide(self.first, policy, second=self.second, **options)

    def take(self, rows: npt.NDArray[Any]) -> EmbeddedPrompts:
        """Return a part of the prompts, by mask or by positions."""
        at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return replace(self, first=self.first[at], second=None if self.second is None else self.second[at])


def embed_rows(
    engine: DecidingEngine,
    rows: Outcomes,
    *,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> EmbeddedPrompts:
    """Embed the prompts of outcome data as `embed_for` does, each for its task where the bundle was fitted with tasks."""
    tasks = task_rows(engine.bundle, rows, progress) if engine.bundle.tasks else None
    return embed_for(engine, rows.prompts, tasks, cache=cache, progress=progress)


def embed_for(
    engine: DecidingEngine,
    prompts: Sequence[str],
    tasks: Sequence[str | None] | None = None,
    *,
    cache: EmbeddingCache | str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> EmbeddedPrompts:
    """Embed prompts as `engine.encode` does, by each encoder that the bundle reads, through a cache where there is one.

    Args:
        tasks: what each prompt is for; None: nothing is said of any.
        cache, progress: as for `embed_prompts`.
    Raises:
        InvalidInputError: a prompt without one token, as `Engine.encode`.
    """
    encoder, again = engine.encoder, engine.second_encoder
    made = embed_prompts(encoder, prompts, cache=cache, progress=progress)
    empty = np.flatnonzero(made.billed_tokens == 0)
    if len(empty):
        raise InvalidInputError(
            f"prompts[{empty[0]}]: expected text, got {len(prompts[empty[0]])} characters without one token"
        )
    # Both tiers bill by the first encoder's tokenizer, so that escalation does not change a price.
    bills = bill_floors(prompts, made.billed_tokens)
    terms = count_texts(list(prompts))
    bundle, x = engine.bundle, made.x
    if tasks is not None:
        x = mark_tasks(bundle.encoder(bundle.quality_heads.encoder).task_columns, x, tasks)
    first = replace(made, x=x, billed_tokens=bills, encoder=encoder.identity, terms=terms)
    second = None
    if again is not None:
        second = embed_prompts(again, prompts, cache=cache, progress=progress)
        heads, x = bundle.escalation_heads, second.x
        if tasks is not None and heads is not None:
            x = mark_tasks(bundle.encoder(heads.encoder).task_columns, x, tasks)
        second = replace(second, x=x, billed_tokens=bills, encoder=again.identity, terms=terms)
    return EmbeddedPrompts(engine, first, second)
