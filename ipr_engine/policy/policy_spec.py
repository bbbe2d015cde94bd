"""`PolicySpec` defines every option of a policy once: its default, its meaning, its form in a record, its flag on the command line.

A new option is a field of `PolicySpec`, the same name in `PolicyOptions`, and what `compile_policy` makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np

from ipr_engine._options import Flag, about, option
from ipr_engine._read_only import read_only
from ipr_engine.bundle import Performance, Price, PriceList
from ipr_engine.bundle.performance import performance_json
from ipr_engine.bundle.price import price_json
from ipr_engine.policy.cost_weights import TERMS
from ipr_engine.policy.rules import BEST, CHEAPEST, DEFAULT_TAU, EVERY_RULE, PRESETS
from ipr_engine.prompts.objects import kind_of

Options = Mapping[str, Any]  # of a policy, by name


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """A `PolicySpec` holds the options that a caller states of a policy, unchecked.

    Each field is an argument of `Engine.policy`; docs/usage.md has a table of them. `compile_policy` checks them.
    """

    tau: float | None = option(
        None,
        "tolerance in [0, 1]. Under rule `path` the share of the way from the best single candidate's mean quality to the cheapest's "
        "that you agree to lose on average, over prompts like the fitting ones; a single prompt is promised nothing. Under another "
        "rule see [decide.md](decide.md). Or, in its place, one of the next five: the same path answers them, and the "
        "calibration map under rule `calibrated` ([calibration.md](calibration.md))",
        form="number",
        flag=Flag(takes="number", help=f"tolerance in [0, 1]: 0 best quality, 1 cheapest (default {DEFAULT_TAU})"),
    )
    rule: str | None = option(
        None,
        "`path`, `minmax`, `max`, `fixed` or `calibrated`. By default `path` where the bundle has path rows of the allowed candidates; "
        "where it has none, `minmax` for tau and `calibrated` for what stands in its place",
        form="text",
        choices=EVERY_RULE,
        flag=Flag(
            choices=tuple(sorted(EVERY_RULE)),
            help="what tau bounds (default path where the bundle has one, else minmax, and calibrated for what follows)",
        ),
    )
    quality_share: float | None = option(
        None,
        "in place of tau: this share of the best single candidate's mean quality",
        form="number",
        flag=Flag(
            takes="number",
            metavar="S",
            help="instead of tau: share of the best single candidate's mean quality to keep",
        ),
    )
    max_usd_per_1k: float | None = option(
        None,
        "in place of tau: the best point that is expected to cost at most this, in USD per 1,000 prompts",
        form="number",
        flag=Flag(takes="number", metavar="USD", help="instead of tau: expected cost of 1,000 prompts"),
    )
    max_share_strongest: float | None = option(
        None,
        "in place of tau: the best point expected to send at most this share to the best single candidate",
        form="number",
        flag=Flag(takes="number", metavar="S", help="instead of tau: share of prompts to the best single candidate"),
    )
    response_quality_difference: float | None = option(
        None,
        "in place of tau: percent of the best one's mean quality that may be lost, 0 to 100",
        form="number",
        flag=Flag(takes="number", metavar="PERCENT", help="instead of tau: mean quality that may be lost, 0 to 100"),
    )
    preset: str | None = option(
        None,
        "in place of tau: `quality`, `balanced` or `cost`: 100, 98 or 95 % of the best one's mean quality",
        form="text",
        choices=tuple(PRESETS),
        flag=Flag(metavar="NAME", help=f"instead of tau: {', '.join(PRESETS)}"),
    )
    slack: float = option(
        0.0,
        "margin of rule `max`, in [0, 1]",
        form="number",
        flag=Flag(takes="number", help="margin of rule max (default 0)"),
    )
    worth: float | None = option(
        None,
        "USD one more unit of quality is worth, >= 0; by default 0, the map's under `calibrated`. Rule `path` reads its own and "
        "refuses it: name the rule",
        form="number",
        flag=Flag(
            takes="number",
            metavar="USD",
            help="USD per unit of quality (default 0, or the map's; not under rule path)",
        ),
    )
    allowed: Sequence[str] | None = option(
        None,
        "only these candidates. Names, families and features are found whatever their case; one that means several which differ by "
        "case alone is an error",
        form="candidates",
        flag=Flag(name="--allow", takes="names", metavar="NAME", help="only these candidates; a,b or repeat"),
    )
    exclude: Sequence[str] | None = option(
        None,
        "none of these candidates: the ones that are down, say",
        form="candidates",
        flag=Flag(takes="names", metavar="NAME", help="none of these candidates; a,b or repeat"),
    )
    family: str | Sequence[str] | None = option(
        None,
        "only candidates of this family, or of these",
        form="names",
        flag=Flag(takes="names", metavar="NAME", help="only these families; a,b or repeat"),
    )
    requires: str | Sequence[str] | None = option(
        None,
        "only candidates with all these features",
        form="names",
        flag=Flag(takes="names", metavar="FEATURE", help="only candidates with all of these; a,b or repeat"),
    )
    max_latency_ms: float | None = option(
        None,
        "only candidates known to answer within it",
        form="number",
        flag=Flag(takes="number", metavar="MS", help="only candidates known to answer within it"),
    )
    prices: PriceList | Mapping[str, object] | None = option(
        None,
        "USD per 1 M tokens: name -> (input, output), a `Price`, or the like of prices.json (tiers, cached input and the rest: "
        "[below](#prices-as-they-are)); the others keep the bundle's",
        form="prices",
        flag=Flag(
            name="--price",
            takes="list",
            metavar="NAME=IN,OUT",
            help="USD per 1 M input and output tokens; repeatable",
        ),
    )
    batch: bool | None = option(
        None,
        "requests go into a batch: batch prices, of the candidates that have some",
        form="flag",
        flag=Flag(takes="switch", help="at the candidates' batch prices"),
    )
    cache_write: bool | None = option(
        None,
        "requests ask the provider to keep their input in its cache: it costs what writing does, of candidates that charge for that, "
        "where it is at least `cache_min_tokens` long",
        form="flag",
        flag=Flag(
            takes="switch",
            help="at the price of writing input to the provider's cache, where it is long enough",
        ),
    )
    escalate_below: float | None = option(
        None,
        "a two-tier bundle decides again, by its second heads, where the first decision's gap is below it, in quality units: 0 never, "
        "`math.inf` always; by default the bundle's own ([two-tiers.md](two-tiers.md))",
        form="number or infinity",
        flag=Flag(
            takes="number",
            metavar="Q",
            help="of a two-tier bundle: decide again where the gap is below it, 0 never, inf always (default the bundle's)",
        ),
    )
    min_support: float | None = option(
        None,
        "in [0, 1]: a prompt whose `support` is below it is not decided by predicted quality (cause `unsupported`); by default the "
        "bundle's own, or 0, none is. It needs a bundle with centroids",
        form="number",
        flag=Flag(
            takes="number",
            metavar="S",
            help="in [0, 1]: a prompt of less support is not decided by predicted quality (default the bundle's, or 0: every prompt is)",
        ),
    )
    unsupported: str | None = option(
        None,
        "who answers it: `best`, the single candidate of the greatest mean realised quality on the fitting prompts (the default, unless "
        "the bundle names one that may be chosen), `cheapest` on this prompt, or a candidate's name. Where that one cannot serve the "
        "request, the plain decision stands",
        form="candidate",
        choices=(BEST, CHEAPEST),
        flag=Flag(
            metavar="NAME",
            help="who answers it: best (the best single candidate, the default), cheapest, or a candidate's name",
        ),
    )
    cost_weights: Mapping[str, float] | None = option(
        None,
        "what a unit of each term of cost is worth, in USD: `usd` (1 where it is left out), `ttft_s` (seconds to the first token), "
        "`generation_s` (seconds per output token, times output tokens) and `wh`. Their weighted sum is traded against quality in "
        "place of USD, and tau's path runs on it; `cost_usd` stays USD",
        form="weights",
        choices=tuple(TERMS),
        flag=Flag(
            name="--cost-weight",
            takes="list",
            metavar="TERM=USD",
            help=f"what a unit of a term of cost is worth, of {', '.join(f'{term} ({unit})' for term, unit in TERMS.items())}; "
            "repeatable (default: USD alone counts)",
        ),
    )
    performance: Mapping[str, Performance | Mapping[str, float]] | None = option(
        None,
        "name -> `Performance`, or the same as a mapping: figures of candidates in place of the engine's, number by number, whatever "
        "`update_performance` says later",
        form="figures",
    )


class PolicyOptions(TypedDict, total=False):
    """`PolicyOptions` types the options of `PolicySpec` as keywords: `Engine.policy(**options: Unpack[PolicyOptions])`."""

    tau: float | None
    rule: str | None
    quality_share: float | None
    max_usd_per_1k: float | None
    max_share_strongest: float | None
    response_quality_difference: float | None
    preset: str | None
    slack: float
    worth: float | None
    allowed: Sequence[str] | None
    exclude: Sequence[str] | None
    family: str | Sequence[str] | None
    requires: str | Sequence[str] | None
    max_latency_ms: float | None
    prices: PriceList | Mapping[str, object] | None
    batch: bool | None
    cache_write: bool | None
    escalate_below: float | None
    min_support: float | None
    unsupported: str | None
    cost_weights: Mapping[str, float] | None
    performance: Mapping[str, Performance | Mapping[str, float]] | None


ABOUT = MappingProxyType(about(PolicySpec))
DEFAULTS: Options = MappingProxyType({made.name: made.default for made in fields(PolicySpec)})

# options that a request over HTTP may set: what candidates cost and do is their operator's to say
POLICY_CONTROLS = tuple(name for name in DEFAULTS if name not in ("prices", "performance"))


def frozen_options(options: Options) -> Options:
    """Return a copy that the caller's lists and mappings no longer reach, without the options left at None."""
    return read_only({name: _frozen(value) for name, value in options.items() if value is not None})


def _frozen(value: Any) -> Any:
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    if isinstance(value, PriceList):
        return replace(value, prices=_frozen(value.prices))
    if isinstance(value, Price):
        numbers = {field.name: _frozen(getattr(value, field.name)) for field in fields(value) if field.name != "tiers"}
        return Price(**numbers, tiers=tuple(value.tiers))
    if isinstance(value, Mapping):
        return read_only({name: _frozen(item) for name, item in value.items()})
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(value))
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value


def options_on(options: Options, names: Sequence[str]) -> dict[str, Any]:
    """Return the options as they stand on another bundle, of these candidates.

    An exclusion, a price or figures of a candidate that it lacks say nothing there. Every other option stays as it is; whether
    it makes sense on that bundle is for `compile_policy` to say.
    """
    known = {name.casefold() for name in names}  # names are found whatever their case, here as in `compile_policy`
    kept = dict(options)
    if "exclude" in kept:
        excluded = [kept["exclude"]] if isinstance(kept["exclude"], str) else kept["exclude"]
        kept["exclude"] = tuple(name for name in excluded if name.casefold() in known)
    if "prices" in kept:
        prices = kept["prices"]
        rows = prices.prices if isinstance(prices, PriceList) else prices
        left = {name: price for name, price in rows.items() if name.casefold() in known}
        kept["prices"] = replace(prices, prices=left) if isinstance(prices, PriceList) else left
    if "performance" in kept:
        kept["performance"] = {name: own for name, own in kept["performance"].items() if name.casefold() in known}
    return kept


def options_to_json(options: Options) -> dict[str, Any]:
    """Return plain JSON types; `options_from_json` gives back equal options, every number exactly."""
    return {name: _to_json(ABOUT[name].form, value) for name, value in options.items()}


def _to_json(form: str | None, value: Any) -> Any:
    if form == "number or infinity":
        return "infinity" if value == math.inf else value  # which JSON has no number for
    if form in ("weights", "figures"):
        return {key: _plain_json(item) for key, item in value.items()}
    if form == "prices":
        date, rows = (value.date, value.prices) if isinstance(value, PriceList) else (None, value)
        return {"date": date, "prices": {name: _price_to_json(price) for name, price in rows.items()}}
    return list(value) if isinstance(value, tuple) else value


def _plain_json(value: Any) -> Any:
    if isinstance(value, Performance):
        return performance_json(value)
    return dict(value) if isinstance(value, Mapping) else value


def _price_to_json(price: Any) -> Any:
    if isinstance(price, Price):
        return price_json(price)
    if not isinstance(price, Mapping):
        return list(price)
    tiers = {"tiers": [dict(tier) for tier in price["tiers"]]} if "tiers" in price else {}
    return {**price, **tiers}


def options_from_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `options_to_json`'s document.

    Raises:
        ValueError: prices are no object of "date" and "prices". Everything else is for `compile_policy` to check.
    """
    options = dict(document)
    if options.get("escalate_below") == "infinity":
        options["escalate_below"] = math.inf
    if "prices" in options:
        prices = options["prices"]
        whole = isinstance(prices, dict) and prices.keys() == {"date", "prices"} and isinstance(prices["prices"], dict)
        if (
            not whole
            or not isinstance(prices["date"], str | None)
            or not all(map(_is_price, prices["prices"].values()))
        ):
            raise ValueError(f'prices: expected an object of "date" and "prices", got {kind_of(prices)}')
        options["prices"] = prices["prices"]
        if prices["date"] is not None:
            options["prices"] = PriceList(date=prices["date"], prices=prices["prices"])
    return options


def _is_price(row: object) -> bool:
    """Return whether a row of prices has the form that `options_to_json` writes; its numbers are for `compile_policy` to check."""
    if isinstance(row, dict):
        tiers = row.get("tiers", [])
        return isinstance(tiers, list) and all(isinstance(tier, dict) for tier in tiers)
    return isinstance(row, list)
