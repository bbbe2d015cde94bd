"""`ipr collect` asks every candidate of a plan, grades the answers, and writes outcome tables; what it may spend is the plan's."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from ipr_engine.cli.text_table import text_table
from ipr_engine.errors import InvalidInputError

EVERY_S = 1.0  # between two states of the line on a terminal
EVERY_S_ELSEWHERE = 30.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "collect",
        help="ask candidates, grade their answers, write outcome tables (extra [collect])",
        description="Ask every candidate of a plan all its prompts, grade the answers and write the outcome tables that `ipr train` takes "
        "(docs/collecting.md). Every call is noted in a ledger beside them: the same command goes on where it stopped, and pays for "
        "nothing twice. No more is spent than the plan's budget_usd.",
    )
    parser.add_argument("plan", metavar="PLAN", help="YAML: prompts, candidates, providers, budget_usd, graders")
    parser.add_argument("--dry-run", action="store_true", help="say what is still to be asked and what it costs; send nothing")
    parser.add_argument(
        "--no-ask", action="store_true", help="send nothing: grade and write what the ledger has, after an edit of the plan, say"
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="send again what a provider called a wrong request; what failed otherwise always is",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)
