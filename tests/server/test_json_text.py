"""Half a surrogate pair in a body reads as U+FFFD, and costs no more than the rest of it."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest

from tests.support import skips

pytest.importorskip("orjson", reason=skips.SERVE)

import orjson

from ipr_engine.server.json_text import json_of

PARTS = (
    "a",
    "é",
    "\\\\",
    "\\n",
    '\\"',
    "\\u0041",
    "\\ud83d\\ude00",
    "\\uD83D\\uDE00",
    "\\ud83d",
    "\\ude00",
    "\\uDBFF",
    "\\\\ud83d",
    "u",
)


def test_each_half_is_read_as_a_replacement_and_nothing_else_is() -> None:
    choose = random.Random(7)
    halves = 0
    for _ in range(5000):
        written = "".join(choose.choices(PARTS, k=choose.randrange(9)))
        read = json.loads(f'"{written}"')
        wanted = read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        halves += wanted != read
        assert json_of(f'["{written}"]'.encode()) == [wanted], written
    assert halves > 1000


def most_memory(body: bytes) -> int:
    tracemalloc.start()
    try:
        assert len(json_of(body)) == 500_001
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_long_text_of_escapes_takes_little_more_memory_for_its_half_pair() -> None:
    body = b'"' + 500_000 * b"\\n"
    assert most_memory(body + b'\\ud800"') < 1.5 * most_memory(body + b'\\ufffd"')


@pytest.mark.parametrize("body", [b'"\\ud8"', b'"\\ud8zz"', b'"\\ud800', b'"a\\ud800\\"'])
def test_what_is_no_json_stays_none(body: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        json_of(body)
