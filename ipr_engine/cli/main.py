"""`main` parses the command line and hands over to one subcommand; a subcommand is its file and a row of `COMMANDS`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ipr_engine._version import __version__
from ipr_engine.cli.bench import spelled_out
from ipr_engine.errors import IprError

# Command -> its module of this package, imported when the command is asked for. In the order of the help.
COMMANDS = {
    "route": "route",
    "explain": "explain",
    "serve": "serve",
    "replay": "replay",
    "off-policy": "off_policy",
    "key": "key",
    "info": "info",
    "demo": "demo",
    "data": "data",
    "init": "init",
    "collect": "collect",
    "train": "train",
    "add-model": "add_model",
    "remove-model": "add_model",
    "set-prices": "set_prices",
    "set-performance": "set_performance",
    "performance": "performance",
    "escalate": "escalate",
    "calibrate": "calibrate",
    "eval": "eval",
    "study": "study",
    "distill": "distill",
    "tokens": "tokens",
    "export-encoder": "export_encoder",
    "bench": "bench",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of `command` and of what belongs to it; of every command where it is not one."""
    parser = argparse.ArgumentParser(
        prog="ipr",
        description="Which LLM should answer this prompt, if mean quality may go a share tau of the way from the best to the cheapest?",
        epilog="Exit codes: 0 done; 1 an error, told on stderr; 2 a command line that cannot be parsed; 3 some rows are bad or could not "
        "be decided, replayed or fitted; 4 some records replay otherwise; 5 and 6 of `ipr bench`: missed or slower, "
        "cannot be told; 5 of `ipr eval --gate`: an edit fails.",
    )
    parser.add_argument("--version", action="version", version=f"ipr_engine {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # The modules of the other commands, and what they import, are not paid for.
    modules = [COMMANDS[command]] if command in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    for name in modules:
        import_module(f"ipr_engine.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of `ipr` and return its exit code. argv: without the program's name; None takes that of the process."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that lacks a character still gets the line
        sys.stdout.reconfigure(errors="backslashreplace")
    given = spelled_out(sys.argv[1:] if argv is None else argv)
    arguments = build_parser(given[0] if given else None).parse_args(given)
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
        print(f"ipr {arguments.command}: interrupted{getattr(arguments, 'resume', '')}", file=sys.stderr)
        return 130


def _drop_stdout() -> None:
    """Point stdout at nothing, so that closing it at exit, with lines still in its buffer, cannot fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
