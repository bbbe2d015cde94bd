"""`run_bounded` runs a command that may hang or say too much, and ends it with its whole group."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_ENDING_S = 0.5  # that a process which has closed its output is given to end by itself


class BoundedRun(NamedTuple):
    """A `BoundedRun` is what a command gave.

    Attributes:
        output: of stdout, up to a limit. errors: the first 400 bytes of stderr.
        in_time: whether it ended its output in time and within the limit. code: exit status; negative where it was killed.
    """

    output: bytes
    errors: bytes
    in_time: bool
    code: int


def run_bounded(
    command: Sequence[str], given: bytes, *, seconds: float, most_output: int, environment: Mapping[str, str]
) -> BoundedRun:
    """Run a command in a group of its own, with `given` on stdin, for so long and for so many bytes; may be called from any thread."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            output, in_time = _read(process, time.monotonic() + seconds, most_output)
        finally:
            _end(process)
        stderr.seek(0)
        return BoundedRun(output, stderr.read(400), in_time, process.returncode)


def _read(process: subprocess.Popen[bytes], deadline: float, most: int) -> tuple[bytes, bool]:
    assert process.stdout is not None
    parts: list[bytes] = []
    length = 0
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        part = os.read(process.stdout.fileno(), 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part[: most - length])
        length += len(part)
        if length > most:
            break
    return b"".join(parts), False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(_ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
