"""What is read of a stream's end is what its events say, in pieces as they come, and no more is kept than that takes."""

from __future__ import annotations

import re
import sys

import pytest

from ipr_engine.server.stream_tail import KEPT_BYTES, StreamTail

END = re.compile(rb'"type":"over"')
NUMBERS: dict[str, tuple[list[bytes], int]] = {
    "no event": ([b""], 0),
    "no numbers": ([b'data: {"type":"a"}\n\n'], 0),
    "the last of two": ([b'data: {"sequence_number":8}\n\n', b'data: {"sequence_number" : 9}\n\n'], 10),
    "in two pieces": ([b'data: {"sequence_', b'number":41}\n\n'], 42),
    "a number that is cut": ([b'data: {"sequence_number":7}\n\n', b'data: {"sequence_number":1'], 8),
    "a text that looks like one": ([b'data: {"sequence_number":7,"delta":"{\\"sequence_number\\":99}"}\n\n'], 8),
    "long ago": ([b'data: {"sequence_number":7}\n\n', KEPT_BYTES * b"x"], 0),
}


def tail(*pieces: bytes) -> StreamTail:
    made = StreamTail()
    for piece in pieces:
        made.add(piece)
    return made


@pytest.mark.parametrize("case", NUMBERS)
def test_the_next_number_is_one_after_the_last(case: str) -> None:
    pieces, number = NUMBERS[case]
    assert tail(*pieces).next_number() == number


@pytest.mark.parametrize("blank", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_an_end_is_lacking_only_where_the_last_event_was_seen_whole(blank: bytes) -> None:
    short, filler, last = b'{"type":"a"}' + blank, KEPT_BYTES * b"x", b'{"type":"over"}' + blank
    assert tail(short, short).lacks(END)
    assert tail(filler, blank, short).lacks(END)
    assert not tail(short, last).lacks(END)
    assert not tail(short, b'{"type":"o', b'ver"}').lacks(END)
    assert not tail(short, filler, filler + blank).lacks(END)


def test_the_last_event_is_seen_whole_where_what_is_kept_begins_with_it() -> None:
    made, long = StreamTail(), b'{"type":"a"' + 2 * KEPT_BYTES * b"x" + b"}\n\n"
    made.add(long, begins=True)
    made.add(long, begins=True)
    assert made.lacks(END)
    made.add(long[50:], inside=True)
    assert made.lacks(END)
    made.add(long[50:])
    assert not made.lacks(END)


def test_no_more_is_kept_than_the_end() -> None:
    made, piece = StreamTail(), 1000 * b"x"
    before = sys.getrefcount(piece)
    for _ in range(1000):
        made.add(piece)
    assert KEPT_BYTES <= len(piece) * (sys.getrefcount(piece) - before) < KEPT_BYTES + len(piece)
