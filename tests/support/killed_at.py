"""`ipr` in a process of its own that kills itself, SIGKILL, right before a call of one function: nothing of it can be tidied up.

python -m tests.support.killed_at MODULE:FUNCTION WHICH ipr's arguments     # WHICH: 1 for its first call
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from typing import Any

from tests.support.places import ROOT

ONE_ESTIMATOR = ("plain",)  # is compared: a comparison takes most of a small fit


def killed_at(place: str, which: int, arguments: list[str]) -> None:
    """Run `ipr` until the call of the function; an assertion says that it came there."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_at", place, str(which), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, (place, run.returncode, run.stderr[-2000:])


def _main(place: str, which: str, *arguments: str) -> int:
    from ipr_engine.cli.main import main
    from ipr_engine.training import train

    train.CLOSED_FORM = ONE_ESTIMATOR
    module, _, name = place.partition(":")
    owner, left = importlib.import_module(module), [int(which)]
    called = getattr(owner, name)

    def counted(*given: Any, **more: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return called(*given, **more)

    setattr(owner, name, counted)
    return main(list(arguments))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
