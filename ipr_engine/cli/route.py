"""`ipr route` reads prompts and prints decisions."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from typing import Any

from ipr_engine.audit.recorder import Recorder
from ipr_engine.cli.options import (
    add_bundle_options,
    add_key_option,
    add_policy_options,
    add_task_option,
    load_engine,
    policy_keywords,
    shorten,
)
from ipr_engine.cli.rows import GIVEN, BadRow, PromptRow, read_rows, read_stdin
from ipr_engine.decision.decision import Row
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import is_one_prompt, kind_of

SHOWN = 5  # numbers of bad lines that the summary names


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "route",
        help="choose a candidate for each prompt",
        description="Choose a candidate for each prompt: from the arguments, from stdin (the whole of it is one prompt), or from "
        'JSONL, one object a line with "prompt" (a string), "messages" or "input" (a request, with its system text, tools and limit '
        'of output tokens), and "billed_tokens", "tokens_out", "extra_usd", "cached_tokens", "tokens_in", "task" where it states them; '
        "every other field is carried through. A bad row gives a line with its error, the rows after it are answered, and the exit code "
        "is 3.",
    )
    parser.add_argument("prompt", nargs="*", help="prompts; none reads one prompt from stdin")
    parser.add_argument("--jsonl", metavar="FILE", help="read prompts from FILE ('-': stdin); implies --json")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.add_argument("--record", metavar="LOG", help="append a record of each decision to LOG, for `ipr replay`")
    parser.add_argument(
        "--record-prompts",
        action="store_true",
        help="keep the prompts in the records: sealed with --key, else in clear",
    )
    parser.add_argument("--record-x", action="store_true", help="keep the embeddings in the records; needs --key")
    parser.add_argument(
        "--record-min-words",
        type=int,
        metavar="N",
        help="a prompt of fewer different words has no figure in its record, which then cannot be replayed; with --key they are "
        "sealed (default 8, 0 keeps all)",
    )
    add_key_option(parser, "it seals what the records keep of prompts")
    add_task_option(parser)
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.jsonl is not None and arguments.prompt:
        raise InvalidInputError("prompt: give prompts either as arguments or with --jsonl, not both")
    for option, given in (
        ("--record-prompts", arguments.record_prompts),
        ("--record-x", arguments.record_x),
        ("--record-min-words", arguments.record_min_words is not None),
        ("--key", arguments.key is not None),
    ):
        if given and arguments.record is None:
            raise InvalidInputError(f"{option}: there are no records that it could concern; add --record LOG")
    if arguments.record_x and arguments.key is None:
        raise InvalidInputError(
            "--record-x: an embedding tells the words of its prompt, and is kept under an owner's key alone; add --key FILE "
            "(`ipr key FILE` makes one)"
        )
    engine = load_engine(arguments, Engine)
    policy = engine.policy(**policy_keywords(arguments))
    as_json = arguments.json or arguments.jsonl is not None
    asked = failed = 0
    bad: list[int] = []
    with contextlib.ExitStack() as stack:
        recorder = None
        if arguments.record is not None:
            recorder = stack.enter_context(
                engine.recorder(
                    arguments.record,
                    keep_prompts=arguments.record_prompts,
                    keep_x=arguments.record_x,
                    key=arguments.key,
                    min_words=arguments.record_min_words,
                )
            )
        for number, row in _rows(arguments):
            asked += 1
            answer = _decide(_for_task(row, arguments.task), number, engine, recorder, policy)
            if not isinstance(answer, BadRow):
                assert isinstance(row, PromptRow)
                failed += answer.model is None
                # flushed: who writes rows into a pipe may wait for the answer to each
                print(_json(row, answer) if as_json else _line(row, answer), flush=as_json)
                continue
            if arguments.jsonl is None and isinstance(row, PromptRow):
                raise InvalidInputError(f"{row.where}: {answer.error}")
            bad.append(number)
            print(json.dumps({"id": answer.id, "line": answer.line, "error": answer.error}), flush=True)
    if failed:
        print(f"ipr route: {failed} row(s) could not be decided; their status says why", file=sys.stderr)
    if bad:
        where = "stdin" if arguments.jsonl == "-" else arguments.jsonl
        lines = ", ".join(f"line {number}" for number in bad[:SHOWN]) + (" ..." if len(bad) > SHOWN else "")
        print(f"ipr route: {len(bad)} of {asked} rows are bad, their error says why: {where}, {lines}", file=sys.stderr)
    return 3 if failed or bad else 0


def _decide(
    row: PromptRow | BadRow, number: int, engine: Engine, recorder: Recorder | None, policy: Policy
) -> Row | BadRow:
    """Return the decision of a row, or what is wrong with it."""
    if isinstance(row, BadRow):
        return row
    name = row.carried.get("id", row.carried.get("row"))
    try:
        if not is_one_prompt(row.prompt):
            raise InvalidInputError(f"prompt: expected one prompt, got {kind_of(row.prompt)}")
        given = {name: row.given.get(name) for name in GIVEN}
        if recorder is None:
            decisions = engine.route_rows(row.prompt, policy, given, "status")
        else:
            id = name if type(name) in (str, int) else None
            decisions = recorder.route_rows(row.prompt, policy, given, "status", ids=[id])
    except InvalidInputError as error:
        return BadRow(number, row.carried.get("id"), str(error))
    decision = decisions[0]
    if decision.status == "invalid_input":
        return BadRow(number, row.carried.get("id"), str(decision.reason))
    return decision


def _for_task(row: PromptRow | BadRow, task: str | None) -> PromptRow | BadRow:
    """Return a row that is for this task where it states none of its own."""
    if task is None or isinstance(row, BadRow) or "task" in row.given:
        return row
    return row._replace(given={**row.given, "task": task})


def _rows(arguments: argparse.Namespace) -> Iterable[tuple[int, PromptRow | BadRow]]:
    if arguments.jsonl is not None:
        return read_rows(arguments.jsonl)
    if arguments.prompt:
        given = enumerate(arguments.prompt, start=1)
        return ((number, PromptRow(prompt, f"prompt {number}", {"row": number}, {})) for number, prompt in given)
    return [(1, PromptRow(read_stdin(), "stdin", {}, {}))]


def _json(row: PromptRow, decision: Row) -> str:
    return json.dumps({**row.carried, "decision": decision.to_dict()}, allow_nan=False)


def _line(row: PromptRow, decision: Row) -> str:
    text = shorten(str(row.prompt), 60)
    if decision.model is None:
        return f"{'-':<28} {decision.status}: {shorten(str(decision.reason), 120)}  {text}"
    prior = "" if decision.prior is None else f" [{decision.prior}]"
    status = f" {decision.calibration:<12}" if decision.policy.rule == "calibrated" else ""
    if decision.support == 0 and decision.cause != "unsupported":
        prior += " [support 0: unlike the fitting data]"
    if decision.task_known is False:
        prior += " [task unknown: decided without]"
    return f"{decision.model:<28} quality {decision.quality:.3f}  {decision.cost_usd:.6f} USD  {decision.cause:<17}{status}{prior} {text}"
