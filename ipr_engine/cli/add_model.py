"""`ipr add-model` and `ipr remove-model` make a bundle from another, everything else in it bit for bit the same."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipr_engine.cli.collecting import SpendingLine, collected_facts, print_estimates, print_outcomes
from ipr_engine.cli.options import GOES_ON, add_cache_option, add_encoder_options, add_key_option, load_options
from ipr_engine.cli.text_table import Page
from ipr_engine.errors import InvalidInputError

# argument -> its flag: what says nothing beside --plan, since the plan says it, or the way has no place for it
ELSEWHERE = {
    "candidates": "--candidates",
    "name": "--name",
    "like": "--like",
    "family": "--family",
    "consistency": "--consistency",
}
OF_PLAN = {
    "choose": "--choose",
    "certify": "--certify",
    "draw": "--draw",
    "certify_split": "--certify-split",
    "tau": "--tau",
    "yes": "--yes",
}

RESTS_ON_NEW = (
    "every head of the bundle is constant: nothing will be certified unless that of {name} tells prompts apart. Train the bundle on more "
    "prompts first (`ipr train`), or pay for none to certify (--certify 0)"
)


def add_parser(subparsers: Any) -> None:
    add = subparsers.add_parser(
        "add-model",
        help="add a candidate to a bundle: from its outcomes, the whole way by a plan, or as a prior (extra [train])",
        description="Fit a row for a new candidate beside the bundle's own, which stay as they are: old qualities keep their bits. "
        "Without --outcomes a prior stands in: the rows of the most similar candidate (of its family, nearest in price), of "
        "--like, or the mean of --family; the bundle says so, and so do `ipr info` and `ipr explain`. "
        "With --plan it asks for the outcomes first (docs/adding-a-model.md).",
    )
    add.add_argument("--candidates", metavar="FILE", help="JSON as for `ipr train`: the new one's facts; or --plan")
    add.add_argument("--name", help="which of the file's entries (default: the one the bundle does not have)")
    add.add_argument("--outcomes", metavar="DIR", help="prompts.* and outcomes.* in which the candidate is judged")
    add.add_argument("--split", default="train", help="split to fit on, 'all' for every prompt (default train)")
    add.add_argument("--like", metavar="NAME", help="no outcomes: start as this candidate")
    add.add_argument("--family", metavar="NAME", help="no outcomes: start as the mean of this family")
    add.add_argument(
        "--consistency",
        type=float,
        metavar="WEIGHT",
        help="refresh the shared trunk too, holding old qualities by the paper's consistency loss of this weight; what the "
        "old candidates forget is measured and told (needs torch)",
    )
    add.add_argument("--seed", type=int, default=0, help="of the folds (default 0)")
    add.add_argument(
        "--created", default=time.strftime("%Y-%m-%d"), help="date written into the bundle (default today)"
    )
    add_key_option(add, "the one that the bundle's prompt hashes are under, by default owner.key beside it")
    add_cache_option(add)
    add_encoder_options(add)
    _add_places(add)
    _add_way_options(add)
    add.set_defaults(run=run_add)

    remove = subparsers.add_parser(
        "remove-model",
        help="take a candidate out of a bundle",
        description="Write a bundle without this candidate; the others' rows, prices and decisions among themselves stay.",
    )
    remove.add_argument("name", help="the candidate")
    _add_places(remove)
    remove.set_defaults(run=run_remove)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, metavar="PATH", help="bundle root or folder")
    parser.add_argument(
        "--out", metavar="ROOT", help="bundle root to write to, made current (default: the bundle's own)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run_add(arguments: argparse.Namespace) -> int:
    _check_way_options(arguments)
    if arguments.plan is not None:
        return _run_plan(arguments)
    import numpy as np

    from ipr_engine.bundle import Bundle
    from ipr_engine.training.add.add_model import add_model
    from ipr_engine.training.add.interface import AddTarget, Evidence, PriorFrom

    added = add_model(
        arguments.bundle,
        arguments.candidates,
        AddTarget(created=arguments.created, root=arguments.out),
        name=arguments.name,
        evidence=Evidence(
            outcomes=arguments.outcomes,
            split=None if arguments.split == "all" else arguments.split,
            consistency=arguments.consistency,
            seed=arguments.seed,
            encoder_options=load_options(arguments),
            cache=arguments.cache,
            key=arguments.key,
        ),
        prior=PriorFrom(like=arguments.like, family=arguments.family),
        progress=lambda message: print(f"ipr add-model: {message}", file=sys.stderr, flush=True),
    )
    if arguments.json:
        facts = _added_facts(added)
        names = Bundle.load(added.folder).names[:-1]
        moved = None if added.refreshed is None else added.refreshed.facts(names)
        print(json.dumps({"bundle": added.folder.name, **facts, "refreshed": moved}))
        return 0
    print(added.folder)
    if added.quality is None:
        level = "" if added.lowered_to is None else f", lowered to mean quality {added.lowered_to:.2f} by its price"
        print(f"{added.candidate}: prior from {', '.join(added.prior_from)}{level}, no outcomes of its own")
    else:
        print(
            f"{added.candidate}: {added.prompts} prompts"
            + (f" and {added.imputed} imputed" if added.imputed else "")
            + f", out of fold: quality {added.quality:.3f}, "
            f"predicted {added.predicted:.3f}, Brier {added.brier:.3f}"
            + (f"; constant head: {added.constant}" if added.constant else "")
        )
    if added.path is not None:
        print(f"path rows: {added.path}")
    if added.help is not None:
        print("\n".join(added.help.says()))
    if added.refreshed is not None:
        r = added.refreshed
        known = r.forgotten[np.isfinite(r.forgotten)]
        lost = (
            f", their Brier score rose by {known.mean():+.4f}" if len(known) else ", their outcomes are not known here"
        )
        print(
            f"trunk refreshed, {r.epochs} epochs; held out: loss {r.loss_before:.4f} -> {r.loss_after:.4f}; the others' qualities "
            f"moved by {r.moved.mean():.4f} on average, {r.most:.4f} at most{lost}"
        )
    return 0


def run_remove(arguments: argparse.Namespace) -> int:
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.edit import without_candidate

    before = Bundle.load(arguments.bundle)
    folder = without_candidate(before, arguments.name, root=arguments.out)
    after = Bundle.load(folder)
    left = after.names
    if before.unsupported is not None and after.unsupported is None:
        print(
            f"ipr remove-model: {arguments.name} answered prompts of support below {before.unsupported.min_support:g}; the bundle says "
            "nothing of them now, so predicted quality decides them unless a policy has min_support=...",
            file=sys.stderr,
        )
    if arguments.json:
        print(json.dumps({"bundle": folder.name, "removed": arguments.name, "candidates": list(left)}))
    else:
        print(f"{folder}\nleft: {', '.join(left)}")
    return 0


def _add_way_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the whole way."""
    group = parser.add_argument_group(
        "the whole way: choose prompts, ask, grade, fit, certify (extras [collect], [train])"
    )
    group.add_argument(
        "--plan",
        metavar="FILE",
        help="YAML of `ipr collect` with the new candidate alone; its prompts are those of --outcomes. Without --yes it says "
        "what it would cost",
    )
    group.add_argument("--choose", type=int, metavar="N", help="prompts that its row is fitted on (default 200)")
    group.add_argument(
        "--draw",
        metavar="HOW",
        help="how these are drawn: random (default), or contested, more often where the other candidates disagree",
    )
    group.add_argument(
        "--certify", type=int, metavar="N", help="prompts more, at random, that tau is tested on (default 200; 0: none)"
    )
    group.add_argument("--certify-split", metavar="NAME", help="the split that these are of (default calibration)")
    group.add_argument("--tau", type=float, help="what is certified (default 0.2)")
    group.add_argument("--yes", action="store_true", default=None, help="send the calls")


def _check_way_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would have no effect.

    Raises:
        InvalidInputError: names the flag, and what to do.
    """
    if arguments.plan is None:
        for name, flag in OF_PLAN.items():
            if getattr(arguments, name) is not None:
                raise InvalidInputError(f"{flag}: stands beside --plan alone; give --plan, or leave it out")
        if arguments.candidates is None:
            raise InvalidInputError("--candidates: expected a file of the new candidate's facts, or --plan")
        return
    for name, flag in ELSEWHERE.items():
        if getattr(arguments, name) is not None:
            raise InvalidInputError(f"{flag}: has no effect beside --plan; leave one of them out")
    if arguments.outcomes is None:
        raise InvalidInputError("--outcomes: --plan chooses among the prompts of an outcome table; name its folder")


def _run_plan(arguments: argparse.Namespace) -> int:
    """Go the whole way."""
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.checks import require_day
    from ipr_engine.bundle.write import require_root
    from ipr_engine.collection.collect import CollectOptions, collect
    from ipr_engine.collection.collection_plan import read_plan
    from ipr_engine.onboarding.new_candidate import ChosenOptions, choose_questions, new_candidate, told
    from ipr_engine.training.add.interface import Evidence

    start = time.monotonic()
    arguments.resume = GOES_ON
    require_day("--created", arguments.created)
    require_root("--out", Bundle.load(arguments.bundle).path.parent if arguments.out is None else arguments.out)
    given = {name: getattr(arguments, name) for name in ("choose", "draw", "certify", "certify_split", "tau")}
    options = ChosenOptions(**{name: value for name, value in given.items() if value is not None})
    evidence = Evidence(
        outcomes=arguments.outcomes,
        split=arguments.split,
        seed=arguments.seed,
        encoder_options=load_options(arguments),
        cache=arguments.cache,
        key=arguments.key,
    )
    plan = read_plan(arguments.plan)
    chosen = choose_questions(plan, arguments.bundle, evidence, options)
    dry = collect(plan, chosen.questions(), CollectOptions(dry_run=True))
    facts = collected_facts(dry, plan)
    calls = sum(one["calls"] for one in facts["candidates"])
    minutes = _minutes(plan, facts["candidates"])
    facts |= {"chosen": len(chosen.fit), "to_certify": len(chosen.certify), "minutes": minutes}
    if not arguments.json:
        print_estimates(facts, sent=bool(arguments.yes))
    _tell(facts["notices"])
    paced = "as fast as the provider answers (its limits name no requests_per_minute)"
    if minutes is not None:
        least = f"{minutes:.1f} minutes at least" if minutes >= 0.1 else "some seconds at least"
        paced = f"{least}, by requests_per_minute of the plan's providers"
    _tell(
        [
            f"{len(chosen.fit)} prompts are drawn for the row, {len(chosen.certify)} drawn to certify; {calls:,} calls, {paced}"
        ]
    )
    if chosen.not_asked is not None:
        _tell([f"nothing will be certified: {chosen.not_asked}"])
    if chosen.rests_on_new:
        _tell([RESTS_ON_NEW.format(name=chosen.name)])
    if chosen.seen:
        _tell([f"{chosen.seen} prompts of the split to certify are left out: heads have seen them, or their questions"])
    if calls and not arguments.yes:
        if arguments.json:
            print(json.dumps({"sent": False, "estimate": facts}))
        _tell(["nothing was sent; the same command with --yes sends these calls"])
        return 0
    line = SpendingLine("ipr add-model")
    try:
        collected = collect(plan, chosen.questions(), CollectOptions(), tell=line.tell, say=line.say)
    finally:
        line.end()
    asked_s = time.monotonic() - start
    facts = collected_facts(collected, plan)
    if not arguments.json:
        print_outcomes(facts)
    _tell(facts["notices"])
    done = collected.done
    if done is not None and (done.interrupted or done.stops_all or done.stopped):
        # A part of the prompts in the order of calls may be no fair sample of those drawn.
        _tell(["nothing is added to the bundle; the same command goes on from here"])
        if arguments.json:
            print(json.dumps({"sent": True, "bundle": None, "collected": facts}))
        return 3
    made = new_candidate(
        chosen,
        arguments.bundle,
        created=arguments.created,
        out=arguments.out,
        say=lambda message: _tell([message]),
    )
    root = made.bundle.parent
    serve = shlex.join(("ipr", "serve", "--bundle", str(root), "--tau", repr(options.tau), *_rule(made)))
    report = told(made, chosen.name, options.tau)
    seconds = time.monotonic() - start
    if arguments.json:
        print(
            json.dumps(
                _way_facts(made, facts) | {"seconds": seconds, "asked_s": asked_s, "report": report, "serve": serve}
            )
        )
        return 0
    page = Page()
    page.text(report)
    page.text(f"{seconds:,.0f} s in all, {asked_s:,.0f} of them to ask and grade; USD {facts['spent_usd']:,.4f} spent")
    if made.added.path is not None:
        page.text(f"path rows: {made.added.path}")
    if made.added.help is not None:
        for sentence in made.added.help.says():
            page.text(sentence)
    print(f"\n    {serve}\n")
    page.text(
        f"Its answers are in {plan.out_folder}: name that folder in `ledgers` of what `ipr init` or `ipr collect` is given, "
        "and they are not paid again where all candidates are fitted anew."
    )
    page.text(
        f"This decides, and asks nobody. For a gateway (--upstreams) name {chosen.name} in its file too: who is not there is never chosen."
    )
    return 0


def _minutes(plan: Any, estimates: list[dict[str, Any]]) -> float | None:
    """Return how long the calls take at least, by the slowest provider's limits; None where no limit says."""
    provider_of, calls = {one.name: one.provider for one in plan.everyone}, Counter[str]()
    for one in estimates:
        calls[provider_of[one["candidate"]]] += one["calls"]
    rates = {name: plan.providers[name].limits.requests_per_minute for name in calls}
    return max((calls[name] / rate for name, rate in rates.items() if rate), default=None)


def _rule(made: Any) -> tuple[str, ...]:
    return ("--rule", "calibrated") if made.certified else ()


def _added_facts(added: Any) -> dict[str, Any]:
    """Return what `add_model` says as plain JSON, but the folder and what was refreshed."""
    facts = {key: value for key, value in vars(added).items() if key not in ("folder", "refreshed")}
    return facts | {"help": None if added.help is None else added.help.to_json()}


def _way_facts(made: Any, collected: dict[str, Any]) -> dict[str, Any]:
    return {
        "sent": True,
        "bundle": Path(made.bundle).name,
        "added": _added_facts(made.added),
        "fitted_on": made.fitted_on,
        "certified_on": made.certified_on,
        "unanswered": made.unanswered,
        "certified": made.certified,
        "why_not": made.why_not,
        "needed": [asdict(one) for one in made.needed],
        "collected": collected,
    }


def _tell(messages: list[str]) -> None:
    for message in messages:
        print(f"ipr add-model: {message}", file=sys.stderr, flush=True)
