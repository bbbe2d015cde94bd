"""Parses the command line and hands over to one subcommand."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from ipr_engine._version import __version__
from ipr_engine.cli import (
    add_model,
    bench,
    calibrate,
    data,
    demo,
    distill,
    escalate,
    eval,
    explain,
    export_encoder,
    info,
    key,
    performance,
    replay,
    route,
    set_performance,
    set_prices,
    study,
    tokens,
    train,
)
from ipr_engine.errors import IprError

SUBCOMMANDS = (
    route,
    explain,
    replay,
    key,
    info,
    demo,
    data,
    train,
    add_model,
    set_prices,
    set_performance,
    performance,
    escalate,
    calibrate,
    eval,
    study,
    distill,
    tokens,
    export_encoder,
    bench,
)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ipr",
        description="Which LLM should answer this prompt, if mean quality may go a share tau of the way from the best to the cheapest?",
        epilog="Exit codes: 0 done; 1 an error, told on stderr; 2 a command line that cannot be parsed; 3 some rows are bad or could not "
        "be decided, replayed or fitted; 4 some records replay otherwise; 5 and 6 of `ipr bench`: missed or slower, cannot be told.",
    )
    parser.add_argument("--version", action="version", version=f"ipr_engine {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in SUBCOMMANDS:
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character still gets the line
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = build_parser().parse_args(bench.spelled_out(sys.argv[1:] if argv is None else argv))
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except IprError as error:
        print(f"ipr {arguments.command}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our stdout has gone, e.g. `| head`
        _drop_stdout()
        return 0
    except OSError as error:  # reading raises IprError, so this is stdout: a full disk, say
        print(f"ipr {arguments.command}: cannot write the result: {error.strerror}", file=sys.stderr)
        _drop_stdout()
        return 1
    except KeyboardInterrupt:
        resume = "; the same command goes on from --run-folder" if getattr(arguments, "run_folder", None) else ""
        print(f"ipr {arguments.command}: interrupted{resume}", file=sys.stderr)
        return 130


def _drop_stdout() -> None:
    """What is still buffered goes nowhere, so that closing stdout at exit cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
