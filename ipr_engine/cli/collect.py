"""`ipr collect` asks every candidate of a plan, grades the answers, and writes outcome tables; what it may spend is the plan's."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from typing import Any

from ipr_engine._files import writable_file
from ipr_engine.cli.collecting import SpendingLine, collected_facts, print_estimates, print_outcomes
from ipr_engine.cli.options import GOES_ON
from ipr_engine.cli.ray_options import add_ray_options, ray_cluster
from ipr_engine.errors import InvalidInputError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "collect",
        help="ask candidates, grade their answers, write outcome tables (extra [collect])",
        description="Ask every candidate of a plan all its prompts, grade the answers and write the outcome tables that `ipr train` takes "
        "(docs/collecting.md). Every call is noted in a ledger beside them: the same command goes on where it stopped, and pays for "
        "nothing twice. No more is spent than the plan's budget_usd.",
    )
    parser.add_argument("plan", metavar="PLAN", help="YAML: prompts, candidates, providers, budget_usd, graders")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what is still to be asked and what it costs; send nothing"
    )
    parser.add_argument(
        "--no-ask",
        action="store_true",
        help="send nothing: grade and write what the ledger has, after an edit of the plan, say",
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="send again what a provider called a wrong request; what failed otherwise always is",
    )
    parser.add_argument(
        "--answers",
        metavar="FILE",
        help="write the answers, too, beside their grades: .jsonl, .csv or .parquet, to read or to label",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_ray_options(parser, "grades answers")
    parser.set_defaults(run=run, resume=GOES_ON)


def run(arguments: argparse.Namespace) -> int:
    from ipr_engine.collection.collect import CollectOptions, collect
    from ipr_engine.collection.collection_plan import read_plan
    from ipr_engine.collection.sources import SourceReport, read_prompts

    if arguments.dry_run and arguments.no_ask:
        raise InvalidInputError("--no-ask: stands beside --dry-run, which sends nothing either; give one of them")
    answers = None if arguments.answers is None else writable_file(arguments.answers, "--answers")
    if answers is not None and answers.suffix not in (".jsonl", ".csv", ".parquet"):
        raise InvalidInputError("--answers: expected a name that ends in .jsonl, .csv or .parquet")
    cluster = ray_cluster(arguments)
    if cluster is not None and arguments.dry_run:
        raise InvalidInputError("--ray: stands beside --dry-run, which grades nothing; leave it out")
    plan = read_plan(arguments.plan)
    if answers is not None and plan.is_own(answers):
        raise InvalidInputError("--answers: would replace the plan, its prompts or its tables; name another file")
    line = SpendingLine("ipr collect")
    options = CollectOptions(
        dry_run=arguments.dry_run,
        retry_failed=arguments.retry_failed,
        ask=not (arguments.dry_run or arguments.no_ask),
        **({} if cluster is None else {"grade": partial(_grade_on, cluster, plan, line.say)}),
    )
    report = SourceReport()
    try:
        made = collect(plan, read_prompts(plan, report), options, tell=line.tell, say=line.say)
    finally:
        line.end()
    if answers is not None and not arguments.dry_run:
        from ipr_engine.collection.answers_file import write_answers

        write_answers(plan, made.filed, answers)
    facts = collected_facts(made, plan)
    facts["notices"] = [*report.lines, *facts["notices"]]
    if arguments.json:
        print(json.dumps(facts))
    elif made.estimates is not None:
        print_estimates(facts)
    else:
        print_outcomes(facts)
    for notice in facts["notices"]:
        print(f"ipr collect: {notice}", file=sys.stderr)
    done = made.done
    return 3 if done is not None and (done.failed or done.stopped or done.stops_all or done.interrupted) else 0


def _grade_on(cluster: Any, plan: Any, say: Any, graders: Any, ledger: Any, run: int) -> Any:
    from ipr_engine.on_ray.grade_on_ray import grade_on_ray

    return grade_on_ray(graders, plan, ledger, run, cluster, say)
