"""What passes of a stream is whole events, at once and byte for byte, and little is held back."""

from __future__ import annotations

import random
import re

import pytest

from ipr_engine.server import whole_events
from ipr_engine.server.whole_events import BEGIN_BYTES, MOST_HELD, WholeEvents

A, B = b"event: a\ndata: 1\n\n", b"data: 2\ndata: 3\n\n"
PARTS = (b"x", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b": c")
CASES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "whole ones": ([A, B], [A, B]),
    "two in one piece": ([A + B], [A + B]),
    "one in two pieces": ([A[:5], A[5:]], [b"", A]),
    "one and a half": ([A + B[:4], B[4:]], [A, B]),
    "its line ends apart": ([A[:-1], A[-1:]], [b"", A]),
    "CR alone": ([b"data: 1\r\r", b"data: 2\r", b"\r"], [b"data: 1\r\r", b"", b"data: 2\r\r"]),
    "CRLF": ([b"data: 1\r\n\r\n", b"data: 2\r\n"], [b"data: 1\r\n\r\n", b""]),
    "CRLF in two pieces": ([b"data: 1\r", b"\n", b"\r", b"\ndata"], [b"", b"", b"data: 1\r\n\r", b"\n"]),
    "a comment": ([b": ping\n", b": ping\r\n: again\n"], [b": ping\n", b": ping\r\n: again\n"]),
    "a comment in parts": ([b": pi", b"ng\n", b"data"], [b"", b": ping\n", b""]),
    "a comment after an event": ([A + b": ping\n" + B[:3]], [A + b": ping\n"]),
    "a comment inside of one": ([b"data: 1\n: ping\n", b"\n"], [b"", b"data: 1\n: ping\n\n"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_passes_are_whole_events_and_lines_that_are_none(case: str) -> None:
    pieces, passed = CASES[case]
    events = WholeEvents()
    assert [events.add(piece) for piece in pieces] == passed
    assert b"".join(passed) + events.rest() == b"".join(pieces)


def test_a_long_event_passes_in_parts_and_the_next_one_whole() -> None:
    events, part = WholeEvents(), b"data: " + MOST_HELD // 2 * b"x"
    assert events.add(part) == b""
    assert events.add(part) == part + part
    assert events.inside
    assert events.begun == (part + part)[:BEGIN_BYTES]
    assert events.add(b"more\n") == b"more\n"
    assert events.add(b"\ndata: 2") == b"\n"
    assert not events.inside
    assert events.add(b"\n\n") == b"data: 2\n\n"


def test_whatever_comes_no_half_event_passes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(whole_events, "MOST_HELD", 40)
    chance = random.Random(request.node.nodeid)
    for _ in range(5000):
        text = b"".join(chance.choices(PARTS, k=chance.randrange(25)))
        events, passed, at = WholeEvents(), b"", 0
        while at < len(text):
            size = chance.randrange(1, 10)
            passed += events.add(text[at : at + size])
            at += size
            assert text.startswith(passed)
            if not events.inside:
                *lines, begun = re.split(rb"\r\n|\n|\r", passed)
                assert begun == b""
                while lines and lines[-1].startswith(b":"):
                    lines.pop()
                assert not lines or lines[-1] == b""
        assert passed + events.rest() == text
