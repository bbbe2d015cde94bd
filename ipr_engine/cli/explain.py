"""`ipr explain` shows every candidate on one prompt, and why one was chosen."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ipr_engine._files import writable_file
from ipr_engine.cli.options import (
    add_bundle_options,
    add_policy_options,
    add_task_option,
    load_engine,
    policy_keywords,
)
from ipr_engine.cli.rows import read_stdin
from ipr_engine.engine import Engine


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "explain",
        help="show every candidate's quality and cost for one prompt",
        description="Show, for one prompt, every candidate's predicted quality, how often it was right where it was predicted about as "
        "high, its cost, who may be chosen, how far each is from being chosen, and from which tau on it is.",
    )
    parser.add_argument("prompt", nargs="?", help="the prompt; none reads it from stdin")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="draw quality over cost, with intervals (extra [eval])"
    )
    add_task_option(parser)
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.plot is not None:
        writable_file(arguments.plot, "--plot", suffix=".png")
    engine = load_engine(arguments, Engine)
    prompt = read_stdin() if arguments.prompt is None else arguments.prompt
    explanation = engine.explain(prompt, engine.policy(**policy_keywords(arguments)), task=arguments.task)
    print(json.dumps(explanation.to_dict(), allow_nan=False) if arguments.json else explanation)
    if arguments.plot is not None:
        from ipr_engine.evaluation.explanation_plot import draw_explanation

        print(f"ipr explain: wrote {draw_explanation(explanation, arguments.plot)}", file=sys.stderr)
    return 0 if explanation.decision.model is not None else 3
