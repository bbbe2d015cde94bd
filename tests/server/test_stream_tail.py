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
    "a number of 18 digits": ([b'data: {"sequence_number":' + 18 * b"1" + b"}\n\n"], int(18 * "1") + 1),
    "a number that is none": ([b'data: {"sequence_number":7}\n\n', b'{"sequence_number":' + 5000 * b"1" + b"}\n\n"], 8),
    "a fraction": ([b'data: {"sequence_number":7}\n\n', b'data: {"sequence_number":9.5}\n\n'], 8),
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
def test_an_end_is_lacking_where_no_whole_event_is_one(blank: bytes) -> None:
    short, filler, last = b'{"type":"a"}' + blank, KEPT_BYTES * b"x", b'{"type":"over"}' + blank
    assert tail(short, short).lacks(END)
    assert tail(filler, blank, short).lacks(END)
    assert not tail(short, last).lacks(END)
    assert not tail(short, last, filler[:-1]).lacks(END)
    assert not tail(short, last[:-1] + 2 * filler + blank).lacks(END)


def test_an_end_in_what_is_no_whole_event_is_none_unless_it_is_all_of_it() -> None:
    event = b'data: {"type":"a"}\n\n'
    assert tail(event).lacks(END, b'data: {"type":"over"}')
    assert not tail(event).lacks(re.compile(rb"data: ?over"), b"data:over\r\n")


def test_the_beginning_of_a_long_event_may_be_the_end() -> None:
    made = tail(KEPT_BYTES * b"x", KEPT_BYTES * b"x" + b"\n\n")
    assert made.lacks(END)
    made.long_event = b'data: {"type":"over","text":"x'
    assert not made.lacks(END)
    made.add(b'data: {"type":"over","text":"', inside=True)
    assert made.lacks(END)


def test_no_more_is_kept_than_the_end() -> None:
    made, piece = StreamTail(), 1000 * b"x"
    before = sys.getrefcount(piece)
    for _ in range(1000):
        made.add(piece)
    assert KEPT_BYTES <= len(piece) * (sys.getrefcount(piece) - before) < KEPT_BYTES + len(piece)
