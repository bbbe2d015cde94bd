"""The subcommands of `ipr bench` share these options: the target, the prompts, the policy, progress."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipr_engine._validate import nonnegative
from ipr_engine.cli.options import add_bundle_options, load_engine
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy

from ..load.lengths import Mix, fixed_lengths, from_file, log_normal
from ..load.targets import StagesTarget, Target
from ..load.targets_registry import TARGETS, make_target
from ..load.threads import Progress

MISSED, UNTOLD = 5, 6  # exit codes
EXIT_CODES = (
    "Exit codes: 0 done, and every objective met and nothing slower; 5 an objective missed, or slower than before; 6 it cannot be told "
    "from this run; 1 an error; 2 a command line that cannot be parsed; 130 interrupted (what was measured is still told)."
)


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    listed = "; ".join(f"{name}: {text}" for name, (text, _) in TARGETS.items())
    parser.add_argument("--target", default="engine", choices=tuple(TARGETS), help=f"{listed} (default engine)")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=N",
        help="of the async and batching targets: max_queue, max_wait_us, max_batch ... (docs/operations.md)",
    )
    parser.add_argument("--tau", type=float, default=0.2, help="tolerance of the decisions (default 0.2)")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--lengths", metavar="N,N", help="generated prompts of these many tokens, in equal shares")
    prompts.add_argument(
        "--mix",
        metavar="FILE",
        help='JSONL of prompts ({"prompt": ...}) or lengths ({"tokens": N}); default: a log-normal mix',
    )
    parser.add_argument("--seed", type=int, default=0, help="of prompts and arrivals (default 0)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_bundle_options(parser)


@dataclass(frozen=True)
class Prepared:
    """A `Prepared` holds engine, policy, prompts and target of a command line."""

    engine: Engine
    policy: Policy
    mix: Mix
    target: Target

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.engine, self.policy)


def settings_of(engine: Engine, policy: Policy) -> dict[str, Any]:
    return {
        "bundle": engine.bundle.hash[:12],
        "encoder": engine.encoder.summary,
        "isa": engine.plan.isa,
        "tau": policy.tau,
    }


def prepare(arguments: argparse.Namespace) -> Prepared:
    if arguments.seed < 0:
        raise InvalidInputError(f"--seed: expected a whole number >= 0, got {arguments.seed}")
    engine = load_engine(arguments, Engine)
    policy = engine.policy(tau=arguments.tau)
    return Prepared(
        engine, policy, make_mix(engine, arguments), make_target(arguments.target, engine, policy, limits_of(arguments))
    )


def limits_of(arguments: argparse.Namespace) -> dict[str, float]:
    """Return --limit NAME=N ... as numbers, whole ones as int."""
    found: dict[str, float] = {}
    for item in arguments.limit:
        name, equals, text = item.partition("=")
        try:
            found[name] = int(text) if text.isdigit() else float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidInputError(f"--limit: expected NAME=N such as max_queue=32, got {item!r}")
    return found


def make_mix(engine: Engine, arguments: argparse.Namespace) -> Mix:
    count = engine.encoder.count_tokens
    if arguments.lengths is not None:
        return fixed_lengths(whole_numbers("--lengths", arguments.lengths), count, seed=arguments.seed)
    if arguments.mix is not None:
        return from_file(arguments.mix, count, seed=arguments.seed)
    return log_normal(count, seed=arguments.seed)


def split_targets(prepared: Prepared) -> Mapping[str, StagesTarget]:
    """Return, for each engine target that reports no stages, the target that tells them."""
    return {name: StagesTarget(prepared.engine, prepared.policy) for name in ("engine", "inline")}


def whole_numbers(option: str, text: str) -> list[int]:
    """Return "16,64" as numbers >= 1."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidInputError(f"{option}: expected whole numbers such as 16,64,512, got {text!r}") from None
    if min(found) < 1:
        raise InvalidInputError(f"{option}: expected whole numbers >= 1, got {min(found)}")
    return found


def share(option: str, value: float, most: float) -> float:
    found = nonnegative(option, value)
    if not 0 < found <= most:
        raise InvalidInputError(f"{option}: expected a share above 0 and at most {most:g}, got {found:g}")
    return found


class Reporter:
    """A `Reporter` tells progress on stderr: a line every few seconds, and one a part."""

    EVERY_S = 5.0

    def __init__(self, name: str, *, quiet: bool) -> None:
        self.name, self.quiet, self.last = name, quiet, time.monotonic()

    def say(self, text: str) -> None:
        if not self.quiet:
            print(f"ipr bench {self.name}: {text}", file=sys.stderr, flush=True)

    def __call__(self, label: str) -> Progress:
        def report(seconds: float, answered: int) -> None:
            if time.monotonic() - self.last >= self.EVERY_S:
                self.last = time.monotonic()
                self.say(f"{label}: {seconds:.0f} s, {answered:,} answers")

        return report


def command_line(arguments: argparse.Namespace) -> str:
    return shlex.join(["ipr", *arguments.argv]) if hasattr(arguments, "argv") else shlex.join(["ipr", *sys.argv[1:]])
