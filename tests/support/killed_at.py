"""`ipr` in processes of their own that kill themselves, SIGKILL, right before a call of one function: nothing of them can be tidied up.

One process, `python -m tests.support.killed_at`, imports what `ipr` does, and is copied for each of them: it reads lines of JSON,
["MODULE:FUNCTION", which call, ipr's arguments], and writes how each copy ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, Any

from tests.support.places import ROOT

ONE_ESTIMATOR = ("plain",)  # is compared: a comparison takes most of a small fit
IMPORTED = (
    "ipr_engine.onboarding.first_router",
    "ipr_engine.onboarding.new_candidate",
    "openai",
    "aiolimiter",
    "sklearn",
)


class KilledRuns:
    """A `KilledRuns` runs commands of `ipr` until their processes are killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._lines: tuple[IO[str], IO[str]] = (process.stdin, process.stdout)

    def __call__(self, place: str, which: int, arguments: list[str]) -> None:
        """Run `ipr` until this call of the function, 1 for its first; an assertion says that it came there."""
        asked, told = self._lines
        print(json.dumps((place, which, arguments)), file=asked, flush=True)
        assert told.readline() == f"{-signal.SIGKILL:d}\n", (place, which)


@contextlib.contextmanager
def killed_runs() -> Iterator[KilledRuns]:
    """Give what runs `ipr` so."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.killed_at"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield KilledRuns(process)


def short_run(patch: Any) -> None:
    """Leave out what takes most of a small run and writes no bundle. patch: as pytest's."""
    patch.setattr("ipr_engine.training.train.comparable", lambda progress: ONE_ESTIMATOR)
    patch.setattr("ipr_engine.evaluation.plots.draw_all", lambda *_: [])


def _main() -> None:
    import pytest

    for module in IMPORTED:
        importlib.import_module(module)
    short_run(pytest.MonkeyPatch())
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)  # what `ipr` prints is no answer
            _run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(place: str, which: int, arguments: list[str]) -> None:
    """Run `ipr` in a copy of the process, and end it."""
    from ipr_engine.cli.main import main

    module, _, name = place.partition(":")
    owner, left = importlib.import_module(module), [which]
    called = getattr(owner, name)

    def counted(*given: Any, **more: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return called(*given, **more)

    setattr(owner, name, counted)
    code = 1
    try:
        code = main(arguments)
    finally:
        os._exit(code)


if __name__ == "__main__":
    _main()
