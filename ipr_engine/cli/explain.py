"""ipr explain: one prompt, every candidate."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ipr_engine.cli.common import add_bundle_options, add_policy_options, load_engine, make_policy, read_stdin


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="show every candidate's quality and cost for one prompt",
        description="Show, for one prompt, every candidate's predicted quality and cost, who may be chosen, and from which tau on.",
    )
    parser.add_argument("prompt", nargs="?", help="the prompt; none reads it from stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    engine = load_engine(arguments)
    prompt = read_stdin() if arguments.prompt is None else arguments.prompt
    explanation = engine.explain(prompt, make_policy(engine, arguments))
    print(json.dumps(explanation.to_dict(), allow_nan=False) if arguments.json else explanation)
    return 0 if explanation.decision.model is not None else 3
