"""A log is written in a thread: whoever logs waits for nobody, and every line is whole or counted as lost."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from ipr_engine.cli import log_queue
from ipr_engine.cli.log_queue import MOST_LINES, LogFormat, LogQueue
from tests.support.places import ROOT

LONG = 500


class Lines:
    """A `Lines` is a logger that writes into a pipe, and what was lost of it."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.lost = 0
        self.queue = LogQueue(self.write, self._lose)
        self.logger = logging.Logger("lines")
        self.logger.addHandler(self.queue)

    def _lose(self) -> None:
        self.lost += 1

    def all(self, most_s: float = 20.0) -> list[str]:
        """Return what was written, once nothing waits."""
        found: list[bytes] = []

        def drain() -> None:
            while piece := os.read(self.read, 65536):
                found.append(piece)

        reading = Thread(target=drain)
        reading.start()
        end = time.monotonic() + most_s
        while self.queue.queue.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        os.close(self.write)
        reading.join()
        return b"".join(found).decode().splitlines()


@pytest.fixture
def lines() -> Iterator[Lines]:
    made = Lines()
    yield made
    os.close(made.read)


def line(number: int) -> str:
    return f"{number} ".ljust(LONG, "x")


def test_who_logs_does_not_wait_for_a_pipe_that_nobody_reads(lines: Lines) -> None:
    count = MOST_LINES + 1000  # the pipe holds some 130
    for number in range(count):
        lines.logger.error(line(number))
    assert lines.lost > 0
    written = lines.all()
    assert len(written) + lines.lost == count
    assert written == [line(int(one.partition(" ")[0])) for one in written]


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_come_whole_and_in_order(lines: Lines, blocking: bool) -> None:
    os.set_blocking(lines.write, blocking)
    for number in range(1000):
        lines.logger.error("%s", line(number))
    assert lines.all() == [line(number) for number in range(1000)]
    assert lines.lost == 0


def test_an_error_is_told_with_its_traceback(lines: Lines) -> None:
    try:
        raise ValueError("why \udc80")
    except ValueError:
        lines.logger.exception("it failed")
    written = lines.all()
    assert (written[0], written[-1]) == ("it failed", "ValueError: why \\udc80")


def test_each_line_has_its_time_and_level_but_those_that_tell_it_themselves(lines: Lines) -> None:
    lines.queue.setFormatter(LogFormat("requests"))
    requests = logging.Logger("requests")
    requests.addHandler(lines.queue)
    requests.info('{"at":1}')
    lines.logger.warning("%d left", 7)
    try:
        raise KeyError("why")
    except KeyError:
        lines.logger.exception("failed")
    first, second, third, *trace = lines.all()
    assert first == '{"at":1}'
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING 7 left", second)
    assert third.endswith("Z ERROR failed")
    assert trace[-1] == "KeyError: 'why'"


def test_flush_waits_until_all_is_written_but_not_for_ever(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    lines.logger.error("one")
    lines.queue.flush()
    assert os.read(lines.read, 100) == b"one\n"
    monkeypatch.setattr(log_queue, "FLUSH_S", 0.1)
    for number in range(1000):
        lines.logger.error(line(number))
    begun = time.monotonic()
    lines.queue.flush()
    assert 0.1 <= time.monotonic() - begun < 5
    monkeypatch.setattr(log_queue, "FLUSH_S", 60.0)
    lines.queue.flush()  # nothing was written meanwhile, and the end of a process flushes twice
    assert time.monotonic() - begun < 30
    assert len(lines.all()) == 1000


FEW_BYTES = """
import logging, resource, sys
from ipr_engine.cli.log_queue import LogQueue

file, lost = open(sys.argv[1], "wb", buffering=0), []
queue = LogQueue(file.fileno(), lambda: lost.append(1))
log = logging.Logger("lines")
log.addHandler(queue)
resource.setrlimit(resource.RLIMIT_FSIZE, (8, resource.RLIM_INFINITY))
log.error("first")
log.error("second")
queue.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.error("third")
queue.flush()
log.error("lost %d", len(lost))
queue.flush()
"""


def test_a_line_that_the_file_does_not_take_is_lost_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", FEW_BYTES, str(path)], check=True, timeout=60, cwd=ROOT)
    assert path.read_text() == "first\nse\nthird\nlost 1\n"
