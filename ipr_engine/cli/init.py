"""`ipr init` goes from models and prompts to a bundle that can be served; it spends nothing without --yes, or with --offline."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_folder
from ipr_engine.cli.collecting import SpendingLine, collected_facts, print_estimates, print_outcomes
from ipr_engine.cli.options import GOES_ON
from ipr_engine.cli.text_table import Page, TextTable
from ipr_engine.errors import InvalidInputError

ADD_WHO_IS_ASKED = "; first write into {file} who is asked, prices and max_tokens (docs/first-router.md)"


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "init",
        help="from models and prompts to a router: collect, split, train, calibrate, evaluate (extras [collect], [train], [eval]); "
        "with --offline from names of models alone",
        description="Go the whole way from models and prompts to a bundle that can be served: plan, cost, calls, grades, splits, heads, "
        "calibration, evaluation (docs/first-router.md). Without --yes it stops before the first call. The same command goes on "
        "where it stopped, and pays for nothing twice. With --offline nobody is asked: a bundle starts from public scores and list "
        "prices, marked as a prior.",
    )
    parser.add_argument(
        "--models",
        required=True,
        metavar="FILE",
        help="YAML: candidates, providers, prices_date, graders (docs/collecting.md); with --offline names are enough",
    )
    parser.add_argument("--prompts", metavar="FILE", help="a table or a log (docs/prompt-sources.md)")
    parser.add_argument("--budget", type=float, metavar="USD", help="the most that all calls may cost")
    parser.add_argument(
        "--offline",
        action="store_true",
        help="ask nobody: public scores and list prices of the models; --prompts then only tells where these would go",
    )
    parser.add_argument("--out", default="router", metavar="DIR", help="the project's folder (default router)")
    parser.add_argument("--tau", type=float, default=0.2, help="what the report is of (default 0.2)")
    parser.add_argument("--yes", action="store_true", help="send the calls")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    _check_flags(arguments)
    project = writable_folder(arguments.out, "--out")
    return _run_offline(arguments, project) if arguments.offline else _run_collecting(arguments, project)


def _check_flags(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.tau < 1:
        raise InvalidInputError(f"--tau: expected a number between 0 and 1, got {arguments.tau:g}")
    if arguments.offline:
        for flag, given in (("--budget", arguments.budget is not None), ("--yes", arguments.yes)):
            if given:
                raise InvalidInputError(
                    f"--offline, {flag}: with --offline nobody is asked and nothing is spent; leave one out"
                )
        return
    for flag, value in (("--prompts", arguments.prompts), ("--budget", arguments.budget)):
        if value is None:
            raise InvalidInputError(
                f"{flag}: is missing; models are asked prompts within a budget, or nobody is, with --offline"
            )


def _run_offline(arguments: argparse.Namespace, project: Path) -> int:
    from ipr_engine.collection.sources import SourceReport, read_questions
    from ipr_engine.onboarding.first_plan import UPSTREAMS_FILE, write_upstreams
    from ipr_engine.onboarding.first_router import BUNDLES
    from ipr_engine.onboarding.offline_models import offline_models
    from ipr_engine.onboarding.offline_router import offline_router, refuse_outcomes
    from ipr_engine.onboarding.prior_card import STUDIED, prior_sentences
    from ipr_engine.onboarding.public_models import public_models

    refuse_outcomes(project / BUNDLES)
    known = public_models()
    models = offline_models(arguments.models, known)
    prompts: list[str] = []
    if arguments.prompts is not None:
        if not Path(arguments.prompts).exists():
            raise InvalidInputError(f"--prompts: {arguments.prompts}: no such file")
        report = SourceReport()
        prompts = [question.prompt for question in read_questions(arguments.prompts, report=report)]
        _tell(report.lines)
    made = offline_router(
        models, known, project / BUNDLES, tau=arguments.tau, prompts=prompts, say=lambda message: _tell([message])
    )
    serve = ["ipr", "serve", "--bundle", str(project / BUNDLES)]
    if models.plan is not None:
        _tell(write_upstreams(models.plan, project))
        serve += ["--upstreams", str(project / UPSTREAMS_FILE)]
    serving = shlex.join((*serve, "--tau", repr(arguments.tau), "--rule", made.rule))
    asked = "prompts.jsonl" if arguments.prompts is None else arguments.prompts
    given = ("--models", arguments.models, "--prompts", asked, "--out", arguments.out)
    replace = f"{shlex.join(('ipr', 'init', *given))} --budget USD"
    sentences = prior_sentences(made)
    if arguments.json:
        told = {**asdict(made), "bundle": str(made.bundle)}
        facts = {"project": str(project), "sent": False, "offline": True, "router": told, "report": sentences}
        print(json.dumps({**facts, "studied": STUDIED, "serve": serving, "replace": replace}))
        return 0
    page = Page()
    _print_prior(made, page)
    page.text(sentences)
    page.text(STUDIED)
    print(f"\n    {serving}\n")
    first = "" if models.plan is not None else ADD_WHO_IS_ASKED.format(file=arguments.models)
    page.text(f"Measured instead, on your prompts{first}:")
    print(f"\n    {replace}")
    return 0


def _print_prior(made: Any, page: Page) -> None:
    of = f"{made.prompts:,} prompts" if made.prompts else "a request of 1,000 input tokens"
    title = f"a prior: public scores and list prices, nothing measured; cost of {of}"
    headings = ["candidate", "quality [95 %]", "USD/1k", *(["share"] if made.prompts else []), "not told apart from"]
    table = TextTable(title, headings, left=(0, len(headings) - 1))
    table.caption = "lengths are those of public answers, without hidden reasoning: a model that reasons costs more"
    for one in made.candidates:
        quality = f"{one.quality:.2f} [{one.low:.2f}, {one.high:.2f}]"
        share = [f"{one.share:.0%}"] if made.prompts else []  # without prompts it is one request, and of one candidate
        table.add(one.name, quality, f"{1000 * one.cost_usd:.3f}", *share, ", ".join(one.alike))
    page.table(table)


def _run_collecting(arguments: argparse.Namespace, project: Path) -> int:
    from ipr_engine.bundle.write import require_root
    from ipr_engine.calibration.calibrate import free_notice
    from ipr_engine.collection.collect import CollectOptions, collect
    from ipr_engine.collection.ledger import LEDGER, Ledger
    from ipr_engine.collection.sources import SourceReport, read_prompts
    from ipr_engine.onboarding.first_plan import PLAN_FILE, UPSTREAMS_FILE, first_plan, is_edited, write_upstreams
    from ipr_engine.onboarding.first_router import (
        BUNDLES,
        FEWEST_PROMPTS,
        first_router,
        own_split,
        what_came,
    )
    from ipr_engine.onboarding.kept_router import refuse_changed

    arguments.resume = GOES_ON
    own_split(project)
    require_root("--out", project / BUNDLES)  # before anything is paid
    project.mkdir(parents=True, exist_ok=True)
    plan = first_plan(arguments.models, arguments.prompts, arguments.budget, project)
    if is_edited(project):
        _tell([f"{project / PLAN_FILE} was edited and is taken as it is; --models and --prompts change nothing in it"])
    refuse_changed(project, project / BUNDLES, [one.name for one in plan.asked])
    report = SourceReport()
    dry = collect(plan, read_prompts(plan, report), CollectOptions(dry_run=True))
    facts = collected_facts(dry, plan)
    facts["notices"] = [*report.lines, *facts["notices"]]
    calls = sum(one["calls"] for one in facts["candidates"])
    if dry.taken.prompts < FEWEST_PROMPTS:
        raise InvalidInputError(
            f"--prompts: expected at least {FEWEST_PROMPTS} different prompts, got {dry.taken.prompts}; nothing was sent"
        )
    if _nothing_to_grade(dry.taken, plan):
        raise InvalidInputError(
            f"{arguments.models}: graders: no answer would have a quality: no prompt has a reference that a grader needs, or a label; "
            "nothing was sent"
        )
    if not arguments.json:
        print_estimates(facts, sent=arguments.yes)
    _tell(facts["notices"])
    free = free_notice({one.name: one.price for one in plan.asked}, [one.name for one in plan.asked])
    if free is not None:
        _tell([f"nothing will be certified: prices: {free}"])
    if calls and not arguments.yes:
        if arguments.json:
            print(json.dumps({"project": str(project), "sent": False, "estimate": facts}))
        _tell(["nothing was sent; the same command with --yes sends these calls"])
        return 0
    line = SpendingLine("ipr init")
    try:
        made = collect(plan, read_prompts(plan), CollectOptions(), tell=line.tell, say=line.say)
    finally:
        line.end()
    facts = collected_facts(made, plan)
    if not arguments.json:
        print_outcomes(facts)
    _tell(facts["notices"])
    if made.done is not None and made.done.interrupted:
        return 3
    if not any(one.outcomes for one in made.candidates.values()):
        raise InvalidInputError(
            "outcomes: no answer has a quality, so there is nothing to fit; what is wrong is said above"
        )
    with Ledger(
        plan.out_folder / LEDGER
    ):  # who holds it is alone in the project: split, bundles and report are one run's
        router = first_router(
            plan,
            project,
            tau=arguments.tau,
            conversations=made.taken.conversations,
            say=lambda message: _tell([message]),
        )
    _tell(write_upstreams(plan, project))
    serve = shlex.join(
        (
            *("ipr", "serve", "--bundle", str(project / BUNDLES), "--upstreams", str(project / UPSTREAMS_FILE)),
            *("--tau", repr(arguments.tau), "--rule", router.rule),
        )
    )
    sentences = what_came(router)
    if arguments.json:
        told = {**asdict(router), "bundle": str(router.bundle), "constant": dict(router.constant)}
        print(
            json.dumps(
                {
                    "project": str(project),
                    "sent": True,
                    "collected": facts,
                    "router": told,
                    "report": sentences,
                    "serve": serve,
                }
            )
        )
    else:
        _print_needed(router)
        Page().text(sentences)
        print(f"\n    {serve}")
    return 0


def _nothing_to_grade(taken: Any, plan: Any) -> bool:
    """Return whether it is known before any call that no answer can get a quality."""
    return not taken.labels and (not plan.graders or sum(taken.unreferenced.values()) == taken.prompts)


def _print_needed(router: Any) -> None:
    if not router.needed:
        return
    table = TextTable("prompts needed, about", ["tau", "calibration", "collected"])
    for one in router.needed:
        table.add(f"{one.tau:g}", f"{one.calibration:,}", f"{one.prompts:,}")
    Page().table(table)


def _tell(messages: list[str]) -> None:
    for message in messages:
        print(f"ipr init: {message}", file=sys.stderr, flush=True)
