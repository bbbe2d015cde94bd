"""This program runs tests of one answer's code inside of a `Sandbox`: its source is handed over, nothing of the package is there.

stdin: JSON of token, code, tests, seconds and test_seconds; stdout: JSON of the token and which tests passed. Each test runs in a
process of its own, forked from this one, which runs no code of the answer itself.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

INPUT, OUTPUT = "/tmp/.stdin", "/tmp/.stdout"
MOST_OUTPUT = 1 << 22


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    results, null = os.dup(1), os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    end = time.monotonic() + job["seconds"]
    passed = []
    for test in job["tests"]:
        left = min(job["test_seconds"], end - time.monotonic())
        passed.append(left > 0 and _passes(job["code"], test, left, results))
    os.write(results, json.dumps({"token": job["token"], "passed": passed}).encode())


def _passes(code: str, test: dict[str, Any], seconds: float, results: int) -> bool:
    by_output = "output" in test
    if by_output:
        with open(INPUT, "w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            file.write(test["input"])
    reader, writer = os.pipe()
    word = os.urandom(16)
    try:
        child = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        return False
    if child == 0:
        os.close(results)
        os.close(reader)
        try:
            _run(code, test)
            os.write(writer, word)
        except BaseException:  # of code that nobody has read: SystemExit and KeyboardInterrupt are failures as well
            os._exit(1)
        os._exit(0)
    os.close(writer)
    ready = select.select([reader], [], [], seconds)[0]
    said = os.read(reader, len(word)) if ready else b""
    os.close(reader)
    _end_all_others()
    return said == word and (not by_output or _lines(_written()) == _lines(test["output"]))


def _run(code: str, test: dict[str, Any]) -> None:
    if "output" in test:
        os.dup2(os.open(INPUT, os.O_RDONLY), 0)
        os.dup2(os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        sys.stdin, sys.stdout = (open(n, mode, encoding="utf-8", closefd=False) for n, mode in ((0, "r"), (1, "w")))  # noqa: SIM115
        names = {"__name__": "__main__"}
        try:
            exec(compile(code, "answer", "exec"), names)
        except SystemExit as ending:
            if ending.code not in (None, 0):
                raise
        sys.stdout.flush()
        return
    names = {"__name__": "answer"}
    for part in (code, test["setup"], test["test"]):
        exec(compile(part, "answer", "exec"), names)
    if test.get("call"):
        names[test["call"]]()  # type: ignore[operator]


def _end_all_others() -> None:
    """Kill and reap every process of the sandbox but its first one and this one: whatever a test has left behind."""
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
            os.waitpid(-1, os.WNOHANG)
        except ProcessLookupError:
            return
        except ChildProcessError:
            pass
        time.sleep(0.001)


def _written() -> str:
    try:
        with open(OUTPUT, "rb") as file:
            return file.read(MOST_OUTPUT).decode("utf-8", "replace")
    except OSError:
        return ""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


if __name__ == "__main__":
    main()
