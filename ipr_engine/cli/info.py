"""`ipr info` prints what a bundle holds and what this machine runs."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from ipr_engine._validate import shown_each
from ipr_engine._version import __version__
from ipr_engine.bundle import Bundle, Candidate, Price
from ipr_engine.bundle.conversation import ALL, LAST, RECENCY
from ipr_engine.bundle.origin import (
    constant_notice,
    constant_of,
    copies_of,
    estimator_of,
    price_dates,
    price_days,
    prior_of,
)
from ipr_engine.bundle.performance import UNITS, performance_json
from ipr_engine.bundle.price import price_numbers
from ipr_engine.cli.options import add_bundle_options, load_engine
from ipr_engine.cli.path_notice import path_rows_facts, path_rows_line
from ipr_engine.decide.contract import available_isas
from ipr_engine.engine import Engine
from ipr_engine.policy.promise import TAUS
from ipr_engine.tokens.profiles import shipped_profiles
from ipr_engine.tokens.token_profile import TokenProfile

_TURNS = {
    ALL: "all, as one text",
    LAST: "the last one that has a token",
    RECENCY: "each alone, weighing half of the next",
}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "info",
        help="show a bundle's candidates, prices and provenance, and the machine's back ends",
        description="Show a bundle's candidates, prices and provenance, and which back ends this machine has.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def _path(engine: Engine) -> dict[str, Any]:
    """Return what a bare tau means for all candidates together: the rule, its status and, under rule `path`, what it promises."""
    policies = [engine.policy(tau=tau) for tau in TAUS]
    rule, status = policies[0].rule, policies[0].calibration
    taus = [{"tau": p.tau, "worth": p.worth, "promise": p.promise.to_dict()} for p in policies if p.promise is not None]
    return {"rule": rule, "status": status.status, "reason": status.reason, "taus": taus}


def _counted_by(candidate: Candidate) -> str:
    """Say what counts a candidate's input tokens: its tokenizer's profile, else the encoder's count times its token_ratio."""
    own = candidate.tokenizer
    if own is None:
        return f"encoder x {candidate.token_ratio:.3g}"
    return own.name if _ships(own) else f"{own.name} (fitted)"


def _ships(profile: TokenProfile) -> bool:
    """Return whether a profile comes with the package; any other was fitted to what its `source` says."""
    return shipped_profiles().get(profile.name) == profile


def _also_priced(price: Price) -> str:
    """Name what a price states beside input and output, in brackets; --json has it in full."""
    stated = {
        "tiers": price.tiers,
        "cached": price.cached_read_usd_per_1m is not None or price.cached_write_usd_per_1m is not None,
        "batch": price.in_batch() is not price,
        "reasoning": price.reasoning_usd_per_1m is not None,
        "images": price.per_image_usd,
        "per request": price.fixed_usd,
    }
    known = [name for name, is_stated in stated.items() if is_stated]
    return f" (also priced: {', '.join(known)})" if known else ""


def _print_path(path: dict[str, Any]) -> None:
    print(f"a bare tau runs rule {path['rule']} ({path['status']}: {path['reason']})")
    if not path["taus"]:
        return
    one = path["taus"][0]["promise"]
    print(
        f"best single {one['best']} {one['best_quality']:.3f}, cheapest {one['cheapest']} {one['cheapest_quality']:.3f}"
    )
    notes = [(line["promise"]["note"] or "").split("; ") for line in path["taus"]]
    shared = [note for note in notes[0] if note and all(note in others for others in notes)]
    print(f"{'tau':>5}  {'promised':>8}  {'USD/1k':>8}  {'worth USD':>9}  note")
    for line, noted in zip(path["taus"], notes, strict=True):
        promise = line["promise"]
        worth = f"{line['worth']:.3g}" if line["tau"] else "any"  # the highest quality, at any cost
        print(
            f"{line['tau']:>5g}  {promise['quality']:>8.3f}  {1000 * promise['cost_usd']:>8.4g}  {worth:>9}  "
            f"{'; '.join(note for note in noted if note not in shared)}".rstrip()
        )
    for note in shared:
        print(f"at every tau: {note}")


def run(arguments: argparse.Namespace) -> int:
    engine = load_engine(arguments, Engine)
    bundle = engine.bundle
    constant, dates = constant_of(bundle), price_dates(bundle)
    fitted_on = asdict(bundle.quality_heads.fitted_on)
    del fitted_on["prompt_hashes"]  # a path of this machine
    facts: dict[str, Any] = {
        "version": __version__,
        "bundle": {"name": bundle.name, "hash": bundle.hash, "created": bundle.created},
        "engine": repr(engine),
        "isas": list(available_isas()),
        "fitted_on": fitted_on,
        "estimator": estimator_of(bundle),
        "copies": copies_of(bundle),
        "escalation": None if bundle.escalation is None else asdict(bundle.escalation),
        "unsupported": None if bundle.unsupported is None else asdict(bundle.unsupported),
        "path_rows": path_rows_facts(bundle),
        "tasks": sorted(bundle.tasks),
        "fold_width": [spec.id for spec in bundle.encoders if spec.fold_width],
        "conversation": bundle.quality_heads.conversation,
        "prices_date": bundle.prices.date,  # the newest
        "calibrations": [
            {
                "candidates": list(made.candidates),
                "risk": made.risk,
                "sample": made.sample.source,
                "prompts": made.sample.prompts,
                "stale": engine.calibrations.changed(made),
            }
            for made in bundle.calibrations
        ],
        "path": _path(engine),
        "candidates": [
            {
                "name": candidate.name,
                "family": candidate.family,
                "provider": candidate.provider,
                "context_window": candidate.context_window,
                "max_output_tokens": candidate.max_output_tokens,
                "tokenizer": None
                if candidate.tokenizer is None
                else {"name": candidate.tokenizer.name, "source": candidate.tokenizer.source},
                "token_ratio": candidate.token_ratio,
                "features": list(candidate.features),
                "input_usd_per_1m": bundle.prices.prices[candidate.name].input_usd_per_1m,
                "output_usd_per_1m": bundle.prices.prices[candidate.name].output_usd_per_1m,
                "basis": bundle.prices.prices[candidate.name].basis,
                "price_date": dates[candidate.name],
                "price": price_numbers(bundle.prices.prices[candidate.name]),
                "performance": None if candidate.performance is None else performance_json(candidate.performance),
                "prior": prior_of(bundle, candidate.name),
                "constant": constant.get(candidate.name),
            }
            for candidate in bundle.candidates
        ],
    }
    if arguments.json:
        print(json.dumps(facts))
        return 0
    print(f"ipr_engine {facts['version']} · instruction sets here: {', '.join(available_isas())}")
    print(facts["engine"])
    told = fitted_on if fitted_on["prompts"] else {"source": fitted_on["source"]}  # hashes of no prompts say nothing
    estimator, copies = facts["estimator"], facts["copies"]
    print(
        f"fitted on: {', '.join(f'{key} {value}' for key, value in told.items())}"
        + (f"; estimator {estimator}" if estimator else "")
        + (f"; {copies} {'copy' if copies == 1 else 'copies'} of every prompt, written otherwise" if copies else "")
    )
    print(path_rows_line(bundle))
    if (said := bundle.unsupported) is not None:
        print(f"prompts of support below {said.min_support:g} go to {said.model}, unless the policy says otherwise")
    if facts["fold_width"]:
        print("full width forms are read as the ASCII that they stand for")
    print(f"of several turns of a user, encoded: {_TURNS[bundle.quality_heads.conversation]}")
    if (again := bundle.escalation_heads) is not None and again.conversation != bundle.quality_heads.conversation:
        print(f"by the second tier: {_TURNS[again.conversation]}")
    if bundle.tasks:
        print(f"tasks told apart: {shown_each(sorted(bundle.tasks))}")
    for made in bundle.calibrations:
        stale = engine.calibrations.changed(made)
        print(
            f"calibration map of {len(made.candidates)} candidates, risk {made.risk:g}, on {made.sample.prompts} prompts of "
            f"{made.sample.source}" + (f"; stale: {stale}" if stale else "")
        )
    _print_path(facts["path"])
    why = set(constant.values())
    shared = f"; {why.pop()}" if len(why) == 1 and len(constant) == len(bundle.names) else ""
    if constant:
        print(constant_notice(constant, len(bundle.names)) + shared)
    print(f"prices of {price_days(bundle)}, USD per 1 M tokens")
    width = max(len(candidate.name) for candidate in bundle.candidates)
    counted = {candidate.name: _counted_by(candidate) for candidate in bundle.candidates}
    by = max(len("tokens by"), *map(len, counted.values()))
    print(
        f"{'candidate':<{width}}  {'family':<10} {'input':>8} {'output':>8} {'context':>9}  {'tokens by':<{by}}  features"
    )
    for candidate in bundle.candidates:
        prior = prior_of(bundle, candidate.name)
        price = bundle.prices.prices[candidate.name]
        window = "unknown" if candidate.context_window is None else str(candidate.context_window)
        line = (
            f"{candidate.name:<{width}}  {candidate.family:<10} {price.input_usd_per_1m:>8g} {price.output_usd_per_1m:>8g} "
            f"{window:>9}  {counted[candidate.name]:<{by}}  {', '.join(candidate.features)}"
            + _also_priced(price)
            + (f" ({prior}: no outcomes of its own)" if prior else "")
            + (f" (constant head: {constant[candidate.name]})" if candidate.name in constant and not shared else "")
        )
        print(line.rstrip())
    _print_fitted_tokenizers(bundle)
    _print_performance(bundle)
    return 0


def _print_fitted_tokenizers(bundle: Bundle) -> None:
    """Print a line for each candidate whose tokenizer's profile was fitted; nothing where none was."""
    fitted = {c.name: c.tokenizer for c in bundle.candidates if c.tokenizer is not None and not _ships(c.tokenizer)}
    if not fitted:
        return
    print(f"profiles of tokenizers fitted, of {len(fitted)} of {len(bundle.names)} candidates")
    width = max(map(len, fitted))
    for name, profile in fitted.items():
        print(f"{name:<{width}}  {profile.name}, fitted to {profile.source}")


def _print_performance(bundle: Bundle) -> None:
    """Print a line for each candidate that has figures; nothing where none has."""
    stated = {c.name: c.performance for c in bundle.candidates if c.performance is not None}
    if not stated:
        return
    print(f"performance, of {len(stated)} of {len(bundle.names)} candidates")
    width = max(map(len, stated))
    for name, figures in stated.items():
        known = performance_json(figures)
        reported = ", ".join(f"{known[key]:g} {unit}" for key, unit in UNITS.items() if key in known)
        print(f"{name:<{width}}  {reported} ({figures.basis})")
