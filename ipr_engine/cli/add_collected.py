"""`ipr add-model --plan` goes from a candidate's name to a bundle with it: chosen prompts, calls, grades, row, certificate."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipr_engine.cli.collecting import SpendingLine, collected_facts, print_estimates, print_outcomes
from ipr_engine.cli.options import load_options
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
    "certify_split": "--certify-split",
    "tau": "--tau",
    "yes": "--yes",
}


def add_options(parser: argparse.ArgumentParser) -> None:
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
        "--certify", type=int, metavar="N", help="prompts more, at random, that tau is tested on (default 200; 0: none)"
    )
    group.add_argument("--certify-split", metavar="NAME", help="the split that these are of (default calibration)")
    group.add_argument("--tau", type=float, help="what is certified (default 0.2)")
    group.add_argument("--yes", action="store_true", default=None, help="send the calls")


def check_options(arguments: argparse.Namespace) -> None:
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


def run_plan(arguments: argparse.Namespace) -> int:
    """Go the whole way."""
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.checks import require_day
    from ipr_engine.bundle.write import require_root
    from ipr_engine.collection.collect import CollectOptions, collect
    from ipr_engine.collection.collection_plan import read_plan
    from ipr_engine.onboarding.new_candidate import ChosenOptions, choose_questions, new_candidate, told
    from ipr_engine.training.add.interface import Evidence

    start = time.monotonic()
    require_day("--created", arguments.created)
    require_root("--out", Bundle.load(arguments.bundle).path.parent if arguments.out is None else arguments.out)
    given = {name: getattr(arguments, name) for name in ("choose", "certify", "certify_split", "tau")}
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
    rate = plan.providers[plan.asked[0].provider].limits.requests_per_minute
    facts |= {"chosen": len(chosen.fit), "to_certify": len(chosen.certify), "minutes": calls / rate if rate else None}
    if not arguments.json:
        print_estimates(facts, sent=bool(arguments.yes))
    _tell(facts["notices"])
    paced = "as fast as the provider answers (its limits name no requests_per_minute)"
    if rate:
        paced = f"{calls / rate:.1f} minutes at least, by its requests_per_minute of {rate:g}"
    _tell(
        [
            f"{len(chosen.fit)} prompts are chosen for the row, {len(chosen.certify)} drawn to certify; {calls:,} calls, {paced}"
        ]
    )
    if calls and not arguments.yes:
        if arguments.json:
            print(json.dumps({"sent": False, "estimate": facts}))
        _tell(["nothing was sent; the same command with --yes sends these calls"])
        return 0
    line = SpendingLine("ipr add-model")
    try:
        collected = collect(plan, chosen.questions(), CollectOptions(), tell=line.tell)
    finally:
        line.end()
    asked_s = time.monotonic() - start
    facts = collected_facts(collected, plan)
    if not arguments.json:
        print_outcomes(facts)
    _tell(facts["notices"])
    done = collected.done
    if done is not None and (done.interrupted or done.stops_all):
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
            json.dumps(_facts(made, facts) | {"seconds": seconds, "asked_s": asked_s, "report": report, "serve": serve})
        )
        return 0
    page = Page()
    page.text(report)
    page.text(f"{seconds:,.0f} s in all, {asked_s:,.0f} of them to ask and grade; USD {facts['spent_usd']:,.4f} spent")
    if made.added.path is not None:
        page.text(f"path rows: {made.added.path}")
    print(f"\n    {serve}")
    return 0


def _rule(made: Any) -> tuple[str, ...]:
    return ("--rule", "calibrated") if made.certified else ()


def _facts(made: Any, collected: dict[str, Any]) -> dict[str, Any]:
    added = {key: value for key, value in vars(made.added).items() if key not in ("folder", "refreshed")}
    return {
        "sent": True,
        "bundle": Path(made.bundle).name,
        "added": added,
        "fitted_on": made.fitted_on,
        "certified_on": made.certified_on,
        "certified": made.certified,
        "why_not": made.why_not,
        "needed": [asdict(one) for one in made.needed],
        "collected": collected,
    }


def _tell(messages: list[str]) -> None:
    for message in messages:
        print(f"ipr add-model: {message}", file=sys.stderr, flush=True)
