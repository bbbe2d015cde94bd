"""Parses the command line and hands over to one subcommand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ipr_engine.cli import demo, distill, eval, explain, info, route
from ipr_engine.errors import IprError

SUBCOMMANDS = (route, explain, info, eval, demo, distill)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipr",
        description="Which LLM should answer this prompt, if at most tau of quality may be lost?",
        epilog="Exit codes: 0 done; 1 an error, told on stderr; 2 a wrong command line; 3 some rows could not be decided.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except IprError as error:
        print(f"ipr {arguments.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our stdout has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
