"""A `Chooser` decides for the endpoints that ask nobody: for whole requests, and among the candidates that a question names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decider import Decider
from ipr_engine.server.exchange import Exchange
from ipr_engine.server.policy_book import require_known
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import ServerConfig
from ipr_engine.server.told import Told

NOT_ROUTED = "a candidate, not a routed model"
MOST_SETS = 16
"""Different sets of choices that the questions of one request may have: each is a decision."""


class Chooser:
    """A `Chooser` decides by one `Decider`, and counts what it chose.

    Attributes:
        config: of the server. limits: of its requests. default: the routed model where none is named.
    """

    def __init__(self, config: ServerConfig, decider: Decider) -> None:
        self.config = config
        self.limits = config.server.limits
        self.default = next(iter(config.models))
        self._decider = decider

    @property
    def names(self) -> tuple[str, ...]:
        """Return the candidates of the bundle that serves."""
        return self._decider.engine.bundle.names

    def alias(self, body: Mapping[str, Any]) -> str:
        """Return the routed model that a decision is asked for; it may be left out."""
        model = body.get("model")
        if model is None:
            return self.default
        return require_known(model, self.config.models, self.names, NOT_ROUTED)

    async def decide(self, question: AskedRequest, told: Told, *, counts: bool = True) -> Decided:
        decided = told.decided = await self._decider.decide(question, answers=True, counts=counts)
        return decided

    async def among(
        self, question: AskedRequest, choices: Sequence[str], told: Told, where: str, wrong_status: int = 400
    ) -> Decided:
        """Decide among the candidates that a question names.

        where: the field that holds them, as errors call it. wrong_status: of a name that is no candidate.

        Raises:
            RefusedError: one of them is no candidate.
        """
        known = {name.casefold() for name in self.names}
        unknown = [one for one in choices if one.casefold() not in known]
        if unknown:
            wrong = f"{where}: {unknown[0][:128]!r} is no candidate; known: {', '.join(self.names)}"
            raise RefusedError(wrong_status, wrong, where, why="choices: one is no candidate")
        names = tuple({one.casefold(): one for one in choices}.values())
        return await self.decide(question._replace(among=names), told)

    async def each(
        self,
        exchange: Exchange,
        question: AskedRequest,
        wanted: Sequence[tuple[str, Sequence[str]]],
        told: Told,
        wrong_status: int = 400,
    ) -> list[Decided]:
        """Decide among each of several sets of choices; a set that comes again is not decided again, and has the same `Decided`.

        wanted: the field that holds choices, and them. wrong_status: of the format, where those are wrong.

        Raises:
            RefusedError: too many sets, or a name that is no candidate. ClientGoneError: the client left meanwhile.
        """
        sets: dict[frozenset[str], tuple[str, Sequence[str]]] = {}
        for where, choices in wanted:
            sets.setdefault(frozenset(map(str.casefold, choices)), (where, choices))
        if len(sets) > MOST_SETS:
            wrong = f"questions: expected at most {MOST_SETS} different sets of choices, got {len(sets)}"
            raise RefusedError(wrong_status, wrong, "questions")

        async def all_sets() -> dict[frozenset[str], Decided]:
            found = {}
            for names, (where, choices) in sets.items():
                found[names] = await self.among(question, choices, told, where, wrong_status)
                await asyncio.sleep(0)  # other requests are answered in between
            return found

        async with exchange.client() as client:
            decided = await client.waits_for(all_sets())
        return [decided[frozenset(map(str.casefold, choices))] for _, choices in wanted]


def require_whole(body: Mapping[str, Any]) -> None:
    """Refuse a request for a decision that wants it as a stream.

    Raises:
        RefusedError: 400.
    """
    if body.get("stream"):
        raise RefusedError(400, "stream: a decision comes whole; leave it out", "stream")


def asked_as(choices: Sequence[str], name: str) -> str:
    """Return the candidate as the question spells it."""
    return next(one for one in choices if one.casefold() == name.casefold())
