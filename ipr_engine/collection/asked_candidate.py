"""An `AskedCandidate` is a candidate of a plan: its entry in the candidates' file, and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ipr_engine._read_only import read_only
from ipr_engine._validate import shown
from ipr_engine.bundle.candidates_file import OPTIONAL, PRICE, REQUIRED, candidates_of
from ipr_engine.bundle.checks import is_amount
from ipr_engine.bundle.price import Price
from ipr_engine.bundle.spec import Candidate
from ipr_engine.collection.provider import Provider
from ipr_engine.documents.typed_document import looks_like_a_key, told
from ipr_engine.errors import InvalidInputError

LIMITS = ("max_tokens", "max_completion_tokens")
ASKED = ("model", *LIMITS, "parameters", "budget_usd")
"""Keys of a plan's candidate besides those of the candidates' file."""
MOST_TOKENS = 10_000_000
JUDGES = "judge"  # their family, where they state none
SET_PER_CALL = ("model", "messages", "tools", "stream", "stream_options", "n", "best_of", *LIMITS)
OTHER_BILLS = (
    "service_tier",
    "fallbacks",
    "extra_body",
    "extra_query",
    "extra_headers",
    "web_search_options",
    "mock_response",
)
"""Fields by which a call may cost what no price of the plan says, or ask somebody else."""


@dataclass(frozen=True, kw_only=True)
class AskedCandidate:
    """An `AskedCandidate` is who answers.

    Attributes:
        candidate, price: as a bundle holds them.
        provider: the name of the plan's provider that it is asked at.
        model: what that provider calls it.
        limit: the field that bounds its answer, one of `LIMITS`. most_tokens: the most output tokens, reasoning included.
        parameters: fields of every request: temperature, an effort of reasoning, ...
        budget_usd: the most to spend on it in one ledger; None: what the plan has.
        entry: its entry in a candidates' file.
    """

    candidate: Candidate
    price: Price
    provider: str
    model: str
    limit: str
    most_tokens: int
    parameters: Mapping[str, Any]
    budget_usd: float | None
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name


def how_asked(asked: AskedCandidate, provider: Provider) -> tuple[object, ...]:
    """Return what, beside a request, an answer depends on: equal values ask the same of the same."""
    return (provider.place, asked.model, asked.limit, asked.most_tokens, dict(asked.parameters))


def asked_candidates(
    entries: Sequence[Mapping[str, Any]], date: str, providers: Sequence[str], path: Path
) -> tuple[AskedCandidate, ...]:
    """Return the candidates of a plan.

    Args:
        date: the day that its prices are of. providers: the names of the plan's. path: the plan, for errors.
    Raises:
        InvalidInputError: names the entry, `candidates[2].max_tokens`, say.
    """
    known = (*REQUIRED, *OPTIONAL, *PRICE, *ASKED)
    for number, entry in enumerate(entries):
        for key in entry:
            if key not in known:
                close = get_close_matches(str(key), known, 3)
                advice = f"; close: {', '.join(close)}" if close else f"; known: {', '.join(known)}"
                raise InvalidInputError(f"candidates[{number}].{told(str(key))[1:-1]}: is no key here{advice}")
        missing = [key for key in REQUIRED if key not in entry]
        if missing:
            raise InvalidInputError(f"candidates[{number}]: lacks {', '.join(missing)}")
    listed = [{key: value for key, value in entry.items() if key not in ASKED} for entry in entries]
    file = candidates_of({"date": date, "candidates": listed}, path)
    return tuple(
        _asked(number, entry, candidate, file.prices.prices[candidate.name], providers)
        for number, (entry, candidate) in enumerate(zip(entries, file.candidates, strict=True))
    )


def asked_judge(
    place: str, given: Mapping[str, Any], date: str, providers: Sequence[str], path: Path
) -> AskedCandidate:
    """Return a judge that is asked as candidates are. place: where its entry stands, for errors; the rest as for `asked_candidates`."""
    try:
        (judge,) = asked_candidates([{"family": JUDGES, **given}], date, providers, path)
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace("candidates[0]", place)) from None
    return judge


def _asked(
    number: int, entry: Mapping[str, Any], candidate: Candidate, price: Price, providers: Sequence[str]
) -> AskedCandidate:
    def fail(key: str, expected: str) -> InvalidInputError:
        return InvalidInputError(f"candidates[{number}].{key}: {expected}")

    if candidate.provider not in providers:
        known = ", ".join(map(told, providers))
        raise fail(
            "provider", f"expected the name of one of the plan's providers ({known}), got {told(candidate.provider)}"
        )
    given = [name for name in LIMITS if name in entry]
    if len(given) != 1:
        raise fail(
            "max_tokens",
            "expected the most tokens of an answer, as max_tokens or, for models that want it, max_completion_tokens",
        )
    most = entry[given[0]]
    if type(most) is not int or not 1 <= most <= MOST_TOKENS:
        raise fail(given[0], f"expected a whole number from 1 to {MOST_TOKENS}, got {shown(most)}")
    budget = entry.get("budget_usd")
    if budget is not None and not is_amount(budget):
        raise fail("budget_usd", f"expected USD, a number >= 0, got {shown(budget)}")
    model = entry.get("model", candidate.name)
    if not isinstance(model, str) or not model.strip() or looks_like_a_key(model):
        raise fail("model", "expected what its provider calls it, a text")
    return AskedCandidate(
        candidate=candidate,
        price=price,
        provider=candidate.provider,
        model=model,
        limit=given[0],
        most_tokens=most,
        parameters=_parameters(entry.get("parameters", {}), fail),
        budget_usd=budget,
        entry=read_only({key: value for key, value in entry.items() if key not in (*ASKED, "source")}),
    )


def _parameters(given: object, fail: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise fail("parameters", "expected fields of a request, such as {temperature: 0}")
    for key, value in given.items():
        if key in OTHER_BILLS:
            raise fail(f"parameters.{key}", "cannot stand here: a call may then cost what no price of the plan says")
        if key in SET_PER_CALL:
            why = (
                "give it beside parameters" if key in (*ASKED, "model") else "it is the prompt's, or set for each call"
            )
            raise fail(f"parameters.{told(str(key))[1:-1]}", f"cannot stand here; {why}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise fail(f"parameters.{told(str(key))[1:-1]}", "expected what JSON can hold") from None
    return read_only(dict(given))
