"""ipr route: prompts in, decisions out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from ipr_engine.cli.common import (
    Request,
    add_bundle_options,
    add_policy_options,
    load_engine,
    make_policy,
    read_jsonl,
    shorten,
)
from ipr_engine.decision import Decision
from ipr_engine.errors import InvalidInputError

BATCH = 256


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
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.jsonl and arguments.prompt:
        raise InvalidInputError("prompt: give prompts either as arguments or with --jsonl, not both")
    engine = load_engine(arguments)
    policy = make_policy(engine, arguments)
    failed = 0
    for batch in _batches(_requests(arguments)):
        encoded = engine.encode([request.prompt for request in batch])
        decisions = engine.decide(encoded, policy, on_error="status")
        for request, decision in zip(batch, decisions, strict=True):
            failed += decision.model is None
            if arguments.json or arguments.jsonl:
                carried = {k: v for k, v in (request.record or {}).items() if k not in ("prompt", "messages")}
                print(json.dumps({**carried, "decision": decision.to_dict()}, ensure_ascii=False, allow_nan=False))
            else:
                print(_line(request, decision))
    if failed:
        print(f"ipr route: {failed} row(s) could not be decided; their status says why", file=sys.stderr)
    return 3 if failed else 0


def _requests(arguments: argparse.Namespace) -> Iterable[Request]:
    if arguments.jsonl:
        return read_jsonl(arguments.jsonl)
    if arguments.prompt:
        return (Request(prompt, None) for prompt in arguments.prompt)
    if sys.stdin.isatty():
        print("ipr route: reading one prompt from the terminal; end it with Ctrl-D", file=sys.stderr)
    return [Request(sys.stdin.read(), None)]


def _batches(requests: Iterable[Request]) -> Iterator[list[Request]]:
    pending = iter(requests)
    while batch := list(islice(pending, BATCH)):
        yield batch


def _line(request: Request, decision: Decision) -> str:
    if decision.model is None:
        return f"{'-':<28} {decision.status:<18} {shorten(str(request.prompt), 60)}"
    return (
        f"{decision.model:<28} quality {decision.quality:.3f}  {decision.cost_usd:.6f} USD  "
        f"{decision.cause:<17} {shorten(str(request.prompt), 60)}"
    )
