"""A `PublicModels` is the table of what is public of models: scores, list prices, lengths of answers (studies/public_abilities.py)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TABLE = Path(__file__).with_name("public_models.json")
Z = 1.96
NEAR = 3  # names that an error tells


def spelling(name: str) -> str:
    """Return a name as it is looked up: "openai/GPT-4o" and "gpt_4o" are one, "Meta-Llama-3_1-8B" and "llama-3.1-8b" too."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.rsplit("/", 1)[-1].casefold()).strip("-")
    return plain.removeprefix("meta-") if plain.startswith("meta-llama") else plain


@dataclass(frozen=True, kw_only=True)
class PublicScore:
    """A `PublicScore` is what a model reached on one source. share: what of its ability is from there."""

    mean: float
    prompts: int
    share: float


@dataclass(frozen=True, kw_only=True)
class PublicPrice:
    """A `PublicPrice` is a list price. entry: its key in the price file."""

    input_usd_per_1m: float
    output_usd_per_1m: float
    entry: str


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """A `PublicModel` is what is public of one model.

    Attributes:
        ability: logits, on the scale of the first source; None where no score is known. own_variance: of it, see `error_between`.
        quality: mean quality over the sources, each counting alike, with the ends of its 95 % interval.
        output_tokens: of an answer on such sources, on average. scores: by source. price: None where none is known.
    """

    name: str
    family: str
    aliases: tuple[str, ...] = ()
    ability: float | None = None
    own_variance: float = 0.0
    quality: tuple[float, float, float] | None = None
    output_tokens: float | None = None
    scores: Mapping[str, PublicScore] = field(default_factory=dict)
    price: PublicPrice | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PublicModels:
    """`PublicModels` are all models of the table.

    Attributes:
        models: by spelling, aliases too.
        sources: names of the sources, in the order of `links`, the covariance of their shifts.
        prices_from, prices_date: the file that the prices are of, and the day that it was fetched.
    """

    models: Mapping[str, PublicModel]
    sources: tuple[str, ...]
    links: Array
    prices_from: str
    prices_date: str

    def find(self, name: str) -> PublicModel | None:
        """Return the model of that name or alias; None where there is none."""
        return self.models.get(spelling(name))

    def scored(self, family: str | None = None) -> list[PublicModel]:
        """Return the models that have a score, each once, in the order of the table; of one family alone, if it is named."""
        known = {one.name: one for one in self.models.values() if one.ability is not None}
        return [one for one in known.values() if family is None or one.family.casefold() == family.casefold()]

    def near(self, name: str) -> list[str]:
        """Return the scored models whose names are closest to this one, those that begin like it first."""
        known = {key: one.name for key, one in self.models.items() if one.ability is not None}
        asked = spelling(name)
        begin = [key for key in known if key.startswith(asked)]
        close = [*begin, *get_close_matches(asked, known, 2 * NEAR, 0.5)]
        return list(dict.fromkeys(known[key] for key in close))[:NEAR]

    def error_between(self, one: PublicModel, other: PublicModel) -> float:
        """Return the standard error of the difference of two abilities: their own, and that of the sources' shifts."""
        if one is other:
            return 0.0
        apart = self._shares(one) - self._shares(other)
        return math.sqrt(one.own_variance + other.own_variance + float(apart @ self.links @ apart))

    def told_apart(self, one: PublicModel, other: PublicModel) -> bool:
        """Return whether the 95 % interval of the difference of two abilities leaves 0 out."""
        assert one.ability is not None
        assert other.ability is not None
        return abs(one.ability - other.ability) > Z * self.error_between(one, other)

    def _shares(self, model: PublicModel) -> Array:
        return np.array([model.scores[name].share if name in model.scores else 0.0 for name in self.sources])


@cache
def public_models() -> PublicModels:
    """Read the table that ships with the package."""
    return models_of(json.loads(TABLE.read_text(encoding="utf-8")))


def models_of(table: Mapping[str, Any]) -> PublicModels:
    """Return the models of a table in plain JSON types."""
    found: dict[str, PublicModel] = {}
    for entry in table["models"]:
        model = _model(entry)
        found |= {spelling(name): model for name in (model.name, *model.aliases)}
    return PublicModels(
        models=found,
        sources=tuple(source["name"] for source in table["sources"]),
        links=np.array(table["links"], np.float64),
        prices_from=table["prices"]["source"],
        prices_date=table["prices"]["date"],
    )


def _model(entry: Mapping[str, Any]) -> PublicModel:
    scores = {source: PublicScore(**score) for source, score in entry.get("scores", {}).items()}
    return PublicModel(
        **{
            **entry,
            "aliases": tuple(entry["aliases"]),
            "scores": MappingProxyType(scores),
            "quality": _triple(entry.get("quality")),
            "price": PublicPrice(**entry["price"]) if "price" in entry else None,
        }
    )


def _triple(values: Sequence[float] | None) -> tuple[float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2])
