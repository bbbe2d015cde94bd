"""ipr route: prompts in, decisions out."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable
from typing import Any

from ipr_engine.cli.common import (
    Request,
    add_bundle_options,
    add_policy_options,
    load_engine,
    make_policy,
    read_jsonl,
    read_stdin,
    shorten,
)
from ipr_engine.decision import Decision
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy import Policy
from ipr_engine.prompts import is_messages
from ipr_engine.recorder import Recorder


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "route",
        help="choose a candidate for each prompt",
        description="Choose a candidate for each prompt: from the arguments, from stdin (the whole of it is one prompt), or from "
        'JSONL, one object a line with "prompt" (a string) or "messages" (chat); every other field is carried through.',
    )
    parser.add_argument("prompt", nargs="*", help="prompts; none reads one prompt from stdin")
    parser.add_argument("--jsonl", metavar="FILE", help="read prompts from FILE ('-': stdin); implies --json")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.add_argument("--record", metavar="LOG", help="append a record of each decision to LOG, for `ipr replay`")
    parser.add_argument(
        "--record-prompts", action="store_true", help="keep the prompts in the records; else only their embeddings"
    )
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.jsonl is not None and arguments.prompt:
        raise InvalidInputError("prompt: give prompts either as arguments or with --jsonl, not both")
    if arguments.record_prompts and arguments.record is None:
        raise InvalidInputError("--record-prompts: there are no records to keep them in; add --record LOG")
    engine = load_engine(arguments)
    policy = make_policy(engine, arguments)
    as_json = arguments.json or arguments.jsonl is not None
    failed = 0
    with contextlib.ExitStack() as stack:
        recorder = None
        if arguments.record is not None:
            recorder = stack.enter_context(engine.recorder(arguments.record, keep_prompts=arguments.record_prompts))
        for request in _requests(arguments):
            decision = _decide(request, engine, recorder, policy)
            failed += decision.model is None
            print(_json(request, decision) if as_json else _line(request, decision), flush=as_json)
    if failed:
        print(f"ipr route: {failed} row(s) could not be decided; their status says why", file=sys.stderr)
    return 3 if failed else 0


def _decide(request: Request, engine: Engine, recorder: Recorder | None, policy: Policy) -> Decision:
    if isinstance(request.prompt, list) and not is_messages(request.prompt):
        raise InvalidInputError(f"{request.where}: expected one prompt, got a list of prompts")
    given = request.carried.get("id", request.carried.get("row"))
    try:
        if recorder is None:
            decision: Decision = engine.route(request.prompt, policy, on_error="status")
        else:
            name = given if type(given) in (str, int) else None
            decision = recorder.route(request.prompt, policy, id=name, on_error="status")
        return decision
    except InvalidInputError as error:
        raise InvalidInputError(f"{request.where}: {error}") from None


def _requests(arguments: argparse.Namespace) -> Iterable[Request]:
    if arguments.jsonl is not None:
        return read_jsonl(arguments.jsonl)
    if arguments.prompt:
        return (Request(prompt, f"prompt {n}", {"row": n}) for n, prompt in enumerate(arguments.prompt, start=1))
    return [Request(read_stdin(), "stdin", {})]


def _json(request: Request, decision: Decision) -> str:
    return json.dumps({**request.carried, "decision": decision.to_dict()}, allow_nan=False)


def _line(request: Request, decision: Decision) -> str:
    text = shorten(str(request.prompt), 60)
    if decision.model is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in decision.excluded.items())
        return f"{'-':<28} {decision.status}: {shorten(reasons, 120)}  {text}"
    prior = "" if decision.prior is None else f" [{decision.prior}]"
    status = f" {decision.calibration:<12}" if decision.policy.rule == "calibrated" else ""
    return f"{decision.model:<28} quality {decision.quality:.3f}  {decision.cost_usd:.6f} USD  {decision.cause:<17}{status}{prior} {text}"
