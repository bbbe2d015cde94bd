"""`offline_models` reads a file of models, and gives each candidate what is public of it: a score, a list price, lengths of answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path
from ipr_engine.bundle.candidates_file import OPTIONAL, PRICE, REQUIRED, CandidatesFile, candidates_of
from ipr_engine.bundle.checks import is_day
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.documents.typed_document import Mistake, read_typed, told
from ipr_engine.documents.yaml_file import read_yaml, told_at_lines
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding.first_plan import LIKE, MODELS, OWN_KEYS
from ipr_engine.onboarding.public_models import PublicModel, PublicModels

TOP = ("candidates", "prices_date")
"""Keys of a file without providers: of such a file names are enough."""
MOST_TOLD = 5
TOKEN_PRICES = PRICE[:2]


@dataclass(frozen=True, kw_only=True)
class OfflineModel:
    """An `OfflineModel` is a candidate and what is public of it.

    Attributes:
        public: whose score and lengths of answers it has. like: whether that is another model, which the file names in its place.
        priced: the list price and its day are of the table; else the file gave them.
    """

    name: str
    public: PublicModel
    like: bool
    priced: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class OfflineModels:
    """`OfflineModels` are all candidates of a file.

    Attributes:
        models: in its order. listed: the same as a candidates' file has them.
        price_dates: candidate -> of which day its price is.
        plan: providers and what they call the candidates, where the file names providers; nobody is asked by it.
    """

    models: tuple[OfflineModel, ...]
    listed: CandidatesFile
    price_dates: Mapping[str, str]
    plan: CollectionPlan | None


def offline_models(path: str | os.PathLike[str], known: PublicModels) -> OfflineModels:
    """Read a file of models, in which names are enough, or the same file that `ipr init` asks models by.

    Raises:
        InvalidInputError: the file cannot be read, something in it is wrong, or nothing is public of a candidate; the error names file,
            line and key, the models that are called alike, and what to do.
    """
    file = as_path(path, "--models")
    document = read_yaml(file, MODELS)
    reading = _Reading(file, document, known)
    if reading.mistakes:
        raise InvalidInputError(told_at_lines(file, MODELS, reading.mistakes, MOST_TOLD))
    days = {one.name: known.prices_date if one.priced else str(document.get("prices_date")) for one in reading.models}
    listed = reading.listed(max(days.values()))
    return OfflineModels(models=tuple(reading.models), listed=listed, price_dates=days, plan=reading.plan())


class _Reading:
    """A reading of one file: its candidates, and what was found wrong."""

    def __init__(self, file: Path, document: Mapping[str, Any], known: PublicModels) -> None:
        self.mistakes: list[Mistake] = []
        self.models: list[OfflineModel] = []
        self._file, self._document, self._known = file, document, known
        self._entries: list[dict[str, Any]] = []
        self._provided = "providers" in document
        for key in document:
            if key in OWN_KEYS:
                self._wrong(key, f"{key}: is no key here; `ipr init` says it (--prompts, --budget, --out)")
            elif not self._provided and key not in TOP:
                self._wrong(
                    key, f"{told(str(key))[1:-1]}: is no key of a file without providers; known: {', '.join(TOP)}"
                )
        given = document.get("candidates")
        if not isinstance(given, list) or len(given) < 2:
            self._wrong("candidates", "candidates: expected a list of at least two models, each a name or an object")
            return
        for number, entry in enumerate(given):
            self._candidate(f"candidates[{number}]", entry)
        names = [one.name for one in self.models]
        for name in {name for name in names if names.count(name) > 1}:
            self._wrong("candidates", f"candidates: {told(name)} stands there twice; names differ")
        if any(not one.priced for one in self.models) and not is_day(document.get("prices_date")):
            self._wrong(
                "prices_date",
                "prices_date: expected the day that the file's prices are of, such as '2026-11-24', quoted",
            )

    def listed(self, date: str) -> CandidatesFile:
        """Return the candidates as a candidates' file of that day has them, checked as one is."""
        keys = {*REQUIRED, *OPTIONAL, *PRICE}
        entries = [{key: value for key, value in entry.items() if key in keys} for entry in self._entries]
        try:
            return candidates_of({"date": date, "candidates": entries}, self._file)
        except InvalidInputError as error:
            raise InvalidInputError(
                told_at_lines(self._file, MODELS, [Mistake("candidates", str(error))], MOST_TOLD)
            ) from None

    def plan(self) -> CollectionPlan | None:
        """Return who is asked where, of a file that names providers."""
        if not self._provided:
            return None
        whole = {
            "prices_date": self._known.prices_date,
            **self._document,
            "candidates": self._entries,
            "prompts": "prompts.jsonl",  # of nobody: no prompt is asked
            "budget_usd": 0.0,
            "path": str(self._file),
        }
        made, mistakes = read_typed(CollectionPlan, whole)
        if made is None:
            raise InvalidInputError(told_at_lines(self._file, MODELS, mistakes, MOST_TOLD))
        return made

    def _candidate(self, place: str, given: Any) -> None:
        entry = {"name": given} if isinstance(given, str) else given
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not entry["name"].strip():
            return self._wrong("candidates", f"{place}: expected the name of a model, or an object with one")
        keys = tuple(dict.fromkeys((*REQUIRED, *OPTIONAL, *PRICE, "model", LIKE)))
        unknown = [key for key in entry if key not in keys]
        if unknown and not self._provided:
            return self._wrong(
                "candidates", f"{place}.{told(str(unknown[0]))[1:-1]}: is no key here; known: {', '.join(keys)}"
            )
        public = self._public(place, entry)
        if public is None:
            return None
        own = self._own(entry)
        listed = None if own is None else own.price
        stated = [key for key in TOKEN_PRICES if key in entry]
        if not stated and listed is None:
            return self._wrong(
                "candidates",
                f"{place}.{TOKEN_PRICES[0]}: no list price of {told(entry['name'])} is known; give {' and '.join(TOKEN_PRICES)}, and "
                "prices_date",
            )
        whole = {"family": public.family, **({} if self._provided else {"provider": public.family}), **entry}
        whole.pop(LIKE, None)
        if not stated and listed is not None:
            basis = f"list price, {listed.entry} in {self._known.prices_from}"
            whole |= {key: getattr(listed, key) for key in TOKEN_PRICES} | {"basis": basis}
        self._entries.append(whole)
        self.models.append(OfflineModel(name=entry["name"], public=public, like=LIKE in entry, priced=not stated))

    def _own(self, entry: Mapping[str, Any]) -> PublicModel | None:
        """Return the model of the table that the candidate is, by its name, else by what its provider calls it."""
        called = (entry["name"], entry.get("model"))
        return next((found for name in called if isinstance(name, str) and (found := self._known.find(name))), None)

    def _public(self, place: str, entry: Mapping[str, Any]) -> PublicModel | None:
        """Return whose score the candidate starts from; None, and a mistake noted, where nobody's is known."""
        if LIKE in entry:
            like = entry[LIKE]
            found = self._known.find(like) if isinstance(like, str) else None
            if found is None or found.ability is None:
                near = self._known.near(like) if isinstance(like, str) else []
                self._wrong(
                    "candidates",
                    f"{place}.{LIKE}: expected the name of a model that has public scores, got {told(str(like))}{self._close(near)}",
                )
                return None
            return found
        own = self._own(entry)
        if own is not None and own.ability is not None:
            return own
        named, key = entry["name"], "model" if isinstance(entry.get("model"), str) else "name"
        near = self._known.near(entry[key]) or self._known.near(named)
        self._wrong(
            "candidates",
            f"{place}.{key}: no public score of {told(str(entry[key]))} is known{self._close(near)}; say `{LIKE}: ` a model that has one "
            "and is about as good, or leave the candidate out",
        )
        return None

    @staticmethod
    def _close(near: list[str]) -> str:
        return f"; close: {', '.join(near)}" if near else ""

    def _wrong(self, top: str, text: str) -> None:
        self.mistakes.append(Mistake(top, text))
