"""Code of the serving tests runs here in an interpreter of its own: it forks, or ends with work in flight."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.places import ROOT

SETUP = """
import asyncio, contextlib, os, sys, threading
from pathlib import Path
from tests.support.serving_encoders import Gate, queued_engine, sibling_bundles
from ipr_engine import AsyncEngine, Engine
from ipr_engine.errors import NotServingError
from ipr_engine.serving import BatchingEngine
bundles = sibling_bundles(Path(sys.argv[1]), 1)

def in_child(check):
    pid = os.fork()
    if pid == 0:
        try:
            check()
            code = 0
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            code = 1
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

"""


def run_apart(tmp_path: Path, code: str) -> list[str]:
    """Return what the code prints, in a fresh interpreter that must end by itself within half a minute."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SETUP + textwrap.dedent(code), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.split()
