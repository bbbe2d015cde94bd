"""Options that several subcommands share, and reading prompts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy import RULES, Policy


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="PATH", help="bundle root or folder (default: the embedded one)")
    parser.add_argument("--isa", default="auto", choices=("auto", "scalar", "avx2", "avx512"), help="instruction set")


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--tau", type=float, default=0.1, help="tolerance in [0, 1]: 0 best quality, 1 cheapest (default 0.1)"
    )
    group.add_argument("--rule", default="minmax", choices=sorted(RULES), help="what tau bounds (default minmax)")
    group.add_argument("--slack", type=float, default=0.0, help="margin of rule max (default 0)")
    group.add_argument("--worth", type=float, default=0.0, metavar="USD", help="USD per unit of quality (default 0)")
    group.add_argument("--allow", action="append", metavar="NAME", help="only this candidate; repeatable")
    group.add_argument("--family", action="append", metavar="NAME", help="only this family; repeatable")
    group.add_argument("--requires", action="append", metavar="FEATURE", help="only candidates with it; repeatable")
    group.add_argument("--max-latency-ms", type=float, metavar="MS", help="only candidates known to answer within it")
    group.add_argument(
        "--price", action="append", metavar="NAME=IN,OUT", help="USD per 1 M input and output tokens; repeatable"
    )


def load_engine(arguments: argparse.Namespace) -> Engine:
    return Engine.load(arguments.bundle, isa=arguments.isa)


def make_policy(engine: Engine, arguments: argparse.Namespace) -> Policy:
    return engine.policy(
        tau=arguments.tau,
        rule=arguments.rule,
        slack=arguments.slack,
        worth=arguments.worth,
        allowed=arguments.allow,
        family=arguments.family,
        requires=arguments.requires,
        max_latency_ms=arguments.max_latency_ms,
        prices=_prices(arguments.price) if arguments.price else None,
    )


def _prices(items: list[str]) -> dict[str, tuple[float, float]]:
    prices = {}
    for item in items:
        name, _, pair = item.rpartition("=")
        try:
            given_in, given_out = (float(value) for value in pair.split(","))
        except ValueError:
            raise InvalidInputError(f"--price: expected NAME=IN,OUT such as gpt-4o=2.5,10, got {item!r}") from None
        prices[name] = (given_in, given_out)
    return prices


class Request(NamedTuple):
    """One prompt to route, with the input record it came from (None for plain text)."""

    prompt: Any
    record: dict[str, Any] | None


def read_jsonl(path: str) -> Iterator[Request]:
    """Requests of a JSONL file ("-" is stdin): objects with "prompt" (string) or "messages" (chat)."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{'stdin' if path == '-' else path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInputError(f"{where}: expected one JSON object a line, got {error}") from None
            if not isinstance(record, dict) or ("prompt" in record) == ("messages" in record):
                raise InvalidInputError(f'{where}: expected an object with either "prompt" or "messages"')
            yield Request(record.get("prompt", record.get("messages")), record)


def _open(path: str) -> Any:
    if path == "-":
        return sys.stdin
    try:
        return open(path, encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"--jsonl: cannot read {path}: {error.strerror}") from None


def shorten(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
