"""This file makes the table that `ipr init --offline` starts from, ipr_engine/onboarding/public_models.json.

    python -m studies.public_abilities --outcomes DIR --prices FILE --taken YYYY-MM-DD

DIR has one source a subfolder; FILE is `model_prices_and_context_window_backup.json` of the package litellm.
studies/public_names.csv says which names mean one model, and which entry of FILE is its price.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes, load_outcomes
from ipr_engine.onboarding.public_models import TABLE
from studies.rasch import Linked, SourceFit, expected_quality, fit_source, link

Array = npt.NDArray[np.float64]

SOURCES = ("zeroeval", "mmlu_pro", "scale_sql", "shaberi_ja", "czech_simpleqa")
"""Those whose licence lets results be shipped. The first sets the scale."""
NAMES = Path(__file__).with_name("public_names.csv")
PRICES_FROM = "litellm 1.110.2"
Z = 1.96


@dataclass(frozen=True)
class PublicName:
    """A `PublicName` is one model: what it is called, here, in sources and in the price file."""

    family: str
    name: str
    aliases: tuple[str, ...]
    scores: Mapping[str, str]
    price: str | None


def public_names() -> list[PublicName]:
    with NAMES.open(encoding="utf-8", newline="") as file:
        return [
            PublicName(
                row["family"],
                row["name"],
                tuple(filter(None, row["aliases"].split(";"))),
                dict(part.split(":", 1) for part in row["scores"].split(";") if part),
                row["price"] or None,
            )
            for row in csv.DictReader(file)
        ]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A `Fitted` holds the sources, their Rasch models and the link; `called` gives a source's model its name here."""

    outcomes: Mapping[str, Outcomes]
    fits: Mapping[str, SourceFit]
    linked: Linked
    called: Mapping[tuple[str, str], str]

    @property
    def level(self) -> float:
        """The shift of a source that counts as one of all."""
        return float(self.linked.shift.mean())

    def quality(self, ability: Array) -> Array:
        """Return the mean quality over all sources that counts each alike, (models,)."""
        return expected_quality(ability, self.linked.shift, [self.fits[name].spread for name in self.linked.sources])


def fit_all(outcomes: Mapping[str, Outcomes]) -> Fitted:
    """Fit and link these sources; models that public_names.csv does not name take part under the name that they have."""
    called = {(source, given): one.name for one in public_names() for source, given in one.scores.items()}
    fits = {source: fit_source(table.quality) for source, table in outcomes.items()}
    known: dict[str, dict[str, tuple[float, float]]] = {}
    for source, table in outcomes.items():
        found: dict[str, tuple[float, float]] = {}
        for m, given in enumerate(table.models):
            name = called.get((source, given), given)
            if name not in found:
                found[name] = float(fits[source].ability[m]), float(fits[source].error[m])
        known[source] = found
    return Fitted(outcomes, fits, link(known), called)


def output_tokens(fitted: Fitted) -> dict[str, float]:
    """Return model -> mean output tokens of an answer on a source that counts as one of all.

    Log mean tokens are a sum of the model's part and the source's, by least squares; sources differ more than models do.
    """
    entries = []
    for source, table in fitted.outcomes.items():
        for m, given in enumerate(table.models):
            tokens = table.output_tokens[:, m]
            if (~np.isnan(tokens)).any():
                entries.append((fitted.called.get((source, given), given), source, float(np.log(np.nanmean(tokens)))))
    names, sources = sorted({name for name, _, _ in entries}), list(fitted.outcomes)
    design = np.zeros((len(entries), len(names) + len(sources)))
    for row, (name, source, _) in enumerate(entries):
        design[row, names.index(name)] = design[row, len(names) + sources.index(source)] = 1
    solved = np.linalg.lstsq(design, np.array([value for _, _, value in entries]), rcond=None)[0]
    typical = solved[len(names) :].mean()
    return {name: float(np.exp(solved[place] + typical)) for place, name in enumerate(names)}


def table_of(fitted: Fitted, outcomes: Path, prices: Mapping[str, Any], taken: str, command: str) -> dict[str, Any]:
    """Return the table, in plain JSON types."""
    linked, tokens = fitted.linked, output_tokens(fitted)
    even = np.full(len(linked.sources), 1 / len(linked.sources))
    apart = linked.share - even
    level_error = np.sqrt(linked.own_variance + np.einsum("ms,st,mt->m", apart, linked.links, apart))
    at = {name: row for row, name in enumerate(linked.names)}
    quality, low, high = (fitted.quality(linked.ability + z * level_error) for z in (0.0, -Z, Z))
    models = []
    for one in public_names():
        entry: dict[str, Any] = {"name": one.name, "family": one.family, "aliases": list(one.aliases)}
        if one.scores:
            row = at[one.name]
            entry |= {
                "ability": _rounded(linked.ability[row]),
                "own_variance": _rounded(linked.own_variance[row], 6),
                "quality": [_rounded(values[row]) for values in (quality, low, high)],
                "output_tokens": round(tokens[one.name], 1),
                "scores": {
                    source: _score(fitted.outcomes[source], given, linked.share[row, linked.sources.index(source)])
                    for source, given in one.scores.items()
                },
            }
        if one.price is not None:
            listed = prices[one.price]
            entry["price"] = {
                "input_usd_per_1m": _rounded(1e6 * listed["input_cost_per_token"], 6),
                "output_usd_per_1m": _rounded(1e6 * listed["output_cost_per_token"], 6),
                "entry": one.price,
            }
        models.append(entry)
    return {
        "command": command,
        "prices": {"source": PRICES_FROM, "date": taken},
        "spread_between_sources": _rounded(linked.spread),
        "overlaps": linked.overlaps,
        "sources": [
            {
                "name": source,
                **_origin(outcomes / source),
                "prompts": len(fitted.outcomes[source]),
                "shift": _rounded(linked.shift[place]),
                "spread": _rounded(fitted.fits[source].spread),
            }
            for place, source in enumerate(linked.sources)
        ],
        "links": [[_rounded(value, 6) for value in line] for line in linked.links],
        "models": models,
    }


def _score(table: Outcomes, given: str, share: float) -> dict[str, Any]:
    judged = table.quality[:, table.models.index(given)]
    return {
        "mean": _rounded(float(np.nanmean(judged))),
        "prompts": int((~np.isnan(judged)).sum()),
        "share": _rounded(share),
    }


def _origin(folder: Path) -> dict[str, str]:
    """Return where a source is from, and under which licence."""
    stated = json.loads((folder / "stats.json").read_text(encoding="utf-8"))
    return {
        "repository": f"https://github.com/{stated['repo']}",
        "commit": stated["commit"],
        "licence": stated["licence"].split(" (")[0],
    }


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


def _lines(table: Mapping[str, Any]) -> str:
    """Return JSON with a model a line, so that a change of one is a change of a line."""
    models = ",\n".join(f"  {json.dumps(one, ensure_ascii=False)}" for one in table["models"])
    head = json.dumps({key: value for key, value in table.items() if key != "models"}, indent=1, ensure_ascii=False)
    return f'{head[:-2]},\n "models": [\n{models}\n ]\n}}\n'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studies.public_abilities", description=__doc__)
    parser.add_argument("--outcomes", required=True, type=Path, metavar="DIR")
    parser.add_argument("--prices", required=True, type=Path, metavar="FILE")
    parser.add_argument("--taken", required=True, metavar="DAY", help="the day that the price file was fetched")
    parser.add_argument("--out", type=Path, default=TABLE, metavar="FILE")
    given = parser.parse_args(arguments)
    fitted = fit_all({source: load_outcomes(given.outcomes / source) for source in SOURCES})
    prices = json.loads(given.prices.read_text(encoding="utf-8"))
    command = f"python -m studies.public_abilities --outcomes DIR --prices FILE --taken {given.taken}"
    given.out.write_text(_lines(table_of(fitted, given.outcomes, prices, given.taken, command)), encoding="utf-8")
    print(f"{given.out}: {len(public_names())} models, {len(fitted.linked.names)} fitted")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
