"""This file reads the prompts of the command line: rows of JSONL as they arrive, or all of stdin as one prompt."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import BODY, TURNS, kind_of

# arguments of Engine.route that a row may state
COUNTS = ("billed_tokens", "tokens_out", "extra_usd", "cached_tokens", "tokens_in")
GIVEN = (*COUNTS, "task")
LEFT_OUT = (*TURNS, "system", "instructions", "tools", "functions", *COUNTS)  # of what is carried through

_KINDS = {str: "string", list: "array", int: "number", float: "number", bool: "boolean", type(None): "null"}


class PromptRow(NamedTuple):
    """A `PromptRow` is one prompt to route.

    Attributes:
        prompt: a string, or a request. where: what errors call it.
        carried: the fields of its row that are carried through. given: arguments of Engine.route that it states.
    """

    prompt: Any
    where: str
    carried: dict[str, Any]
    given: dict[str, Any]


class BadRow(NamedTuple):
    """A `BadRow` stands for a row that holds no prompt: its line, its id where it has one, and what is wrong."""

    line: int
    id: Any
    error: str


def read_jsonl(path: str) -> Iterator[PromptRow]:
    """Yield the rows of a JSONL file ("-" is stdin), as they arrive; the first bad one is an error."""
    where = "stdin" if path == "-" else path
    for _, row in read_rows(path):
        if isinstance(row, BadRow):
            raise InvalidInputError(f"{where}, line {row.line}: {row.error}")
        yield row


def read_rows(path: str) -> Iterator[tuple[int, PromptRow | BadRow]]:
    """Yield the number and the row of every line of a JSONL file ("-" is stdin) that is not empty, as they arrive."""
    where = "stdin" if path == "-" else path
    for number, line in enumerate(_lines(path, where), start=1):
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # UTF-8's byte order mark, which some editors write
        if line.strip():
            record, problem = _record(line)
            if problem is None:
                problem = _problem_of(record)
            if problem is not None:
                yield number, BadRow(number, record.get("id"), problem)
            else:
                yield number, _row(record, f"{where}, line {number}")


def _record(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return the object of a line and None, or {} and what is wrong with it."""
    # A problem is returned, not raised: JSON's own errors hold the text, and a traceback would show it.
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        return {}, f"expected UTF-8, got byte {line[error.start]:#04x}"
    except (ValueError, RecursionError) as error:
        return {}, f"expected one JSON object a line, got {error}"
    if isinstance(record, dict):
        return record, None
    return {}, f"expected one JSON object a line, got a JSON {_KINDS[type(record)]}"


def _problem_of(record: dict[str, Any]) -> str | None:
    """Say why an object is no row; None where it is one."""
    given = [name for name in TURNS if name in record]
    if len(given) != 1:
        return f"expected an object with one of {', '.join(map(repr, TURNS))}, got {' and '.join(map(repr, given)) or 'none of them'}"
    if "decision" in record:
        return '"decision" is where the answer goes; rename that field'
    if not isinstance(record.get("task"), str | None):
        return f"task: expected a text, got {kind_of(record['task'])}"
    return None


def _row(record: dict[str, Any], where: str) -> PromptRow:
    prompt: Any = {name: record[name] for name in BODY if name in record}
    if prompt.keys() == {"prompt"}:
        prompt = prompt["prompt"]
    carried = {name: value for name, value in record.items() if name not in LEFT_OUT}
    return PromptRow(prompt, where, carried, {name: record[name] for name in GIVEN if record.get(name) is not None})


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text}, which no float64 holds")
    return value


def read_stdin() -> str:
    """Return all of stdin as one prompt."""
    if sys.stdin.isatty():
        print("reading one prompt from the terminal; end it with Ctrl-D", file=sys.stderr)
    data = b"".join(_lines("-", "stdin"))
    problem = None  # raised behind the block, so that it does not chain to the error below
    try:
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
    except UnicodeDecodeError as error:  # which holds the text
        problem = f"stdin: expected UTF-8, got byte {data[error.start]:#04x}"
    if problem is not None:
        raise InvalidInputError(problem)
    return text


def _lines(path: str, where: str) -> Iterator[bytes]:
    try:
        with contextlib.ExitStack() as stack:
            yield from sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
    except OSError as error:
        raise InvalidInputError(f"--jsonl: cannot read {where}: {error.strerror}") from None
