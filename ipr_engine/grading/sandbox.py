"""A `Sandbox` runs Python code that nobody has read: without network, files or environment, bounded, killed as a whole."""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ipr_engine.errors import BackendUnavailableError
from ipr_engine.grading.bounded_process import run_bounded

LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
REFUSED = 97  # the launcher's
MOST_OUTPUT = 1 << 16
GRACE_S = 5.0  # for the interpreter to start, over the seconds that code is given
_numbers = itertools.count(os.getpid())


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """`SandboxLimits` bound a program.

    Attributes:
        seconds: on the clock, and of CPU for each process. memory_mb: address space of each process. processes: and threads, at most.
        file_mb: of one file, and of all of them.
    """

    seconds: float
    memory_mb: int = 512
    processes: int = 8
    file_mb: int = 16


class SandboxRun(NamedTuple):
    """A `SandboxRun` is what came out: the first 64 KB of stdout, and whether the program ended by itself in time."""

    output: bytes
    in_time: bool


class Sandbox:
    """A `Sandbox` runs programs, one a call, from any thread.

    A program has namespaces of its own for network, mounts, processes and users. Of the file system it sees the interpreter
    and its packages, read-only, and an empty /tmp; there is no network device that is up. It runs without privileges under limits.
    With it end all processes that it has started.
    """

    def __init__(self, limits: SandboxLimits) -> None:
        """Try the sandbox once.

        Raises:
            BackendUnavailableError: this machine does not let processes have namespaces of their own; nothing is run without.
        """
        self.limits = limits
        check_sandbox()

    def run(self, program: str, given: bytes) -> SandboxRun:
        """Run Python source with `given` on its stdin.

        Raises:
            BackendUnavailableError: a step of the sandbox failed; the program has not begun.
        """
        return _run(program, given, self.limits)


@cache
def check_sandbox() -> None:
    """Run a program in the sandbox, once a process.

    Raises:
        BackendUnavailableError: it cannot be had here.
    """
    if sys.platform != "linux":
        raise BackendUnavailableError(
            f"a sandbox for code of answers needs Linux, got {sys.platform}; grade on another machine"
        )
    if _run("print('ran')", b"", SandboxLimits(seconds=10)).output != b"ran\n":
        raise BackendUnavailableError(
            "a sandbox for code of answers: a program in it gave nothing; run it on another machine"
        )


def _run(program: str, given: bytes, limits: SandboxLimits) -> SandboxRun:
    with tempfile.TemporaryDirectory(prefix="ipr-") as root:
        os.chmod(root, 0o755)
        config = json.dumps(_config(program, os.path.realpath(root), limits))
        run = run_bounded(
            [sys.executable, "-I", "-S", "-B", str(LAUNCHER), config],
            given,
            seconds=limits.seconds + GRACE_S,
            most_output=MOST_OUTPUT,
            environment={},
        )
    if run.code == REFUSED:
        raise BackendUnavailableError(_refusal(run.errors.decode(errors="replace").strip()))
    return SandboxRun(run.output, run.in_time)


def _refusal(step: str) -> str:
    return (
        f"a sandbox for code of answers: {step}; code runs in namespaces of its own (user, mount, process, network) or not at all. "
        "Allow them (sysctl kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces; a container needs a seccomp "
        "profile that lets unshare and mount pass), run as an ordinary user or as root with CAP_SYS_ADMIN, or grade on another machine"
    )


def _config(program: str, root: str, limits: SandboxLimits) -> dict[str, Any]:
    megabyte = 1 << 20
    cpu = math.ceil(limits.seconds) + 1
    return {
        "root": root,
        "shown": _shown(),
        "number": next(_numbers),
        "space_bytes": limits.file_mb * megabyte,
        "limits": {
            "AS": limits.memory_mb * megabyte,
            "CPU": cpu,
            "FSIZE": limits.file_mb * megabyte,
            "NPROC": limits.processes,
            "NOFILE": 128,
            "CORE": 0,
        },
        "argv": [sys.executable, "-I", "-B", "-X", "utf8", "-c", program],
        "environment": {
            "HOME": "/tmp",
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        },
    }


@cache
def _shown() -> list[str]:
    """Return the paths that a program sees: the interpreter, its packages, the system's libraries, three devices."""
    system = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom"]
    own = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    found = [path for path in system if os.path.lexists(path)]
    for path in (os.path.abspath(one) for one in own):
        if not any(path == one or path.startswith(f"{one}/") for one in found):
            found.append(path)
    return found
