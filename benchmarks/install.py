"""python -m benchmarks.install [EXTRA ...] installs the packages of the core and of each extra, and tells how many they are.

Each goes into a new environment that has nothing else, not even pip, under the versions of constraints.txt. `--packages "A B"`
measures another list. Megabytes are those of the files on the disk. Seconds hold the download: they are this network's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipr_engine.errors import InvalidInputError

from .harness.checkout import ROOT
from .harness.machine import recorded
from .harness.results import FOLDER, Line, append, as_json

CORE = "core"


def requirements(name: str) -> list[str]:
    """Return what pyproject.toml asks for: of the core, and of an extra beside it."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = {CORE: [], **project["optional-dependencies"]}
    if name not in extras:
        raise InvalidInputError(f"EXTRA: expected one of {', '.join(extras)}, got {name!r}")
    return [*project["dependencies"], *extras[name]]


def measure(what: str, wanted: Sequence[str]) -> Line:
    """Install a list of requirements into an environment of its own.

    Raises:
        InvalidInputError: pip cannot install it; says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", f"{folder}/bin/python"]
        outside = {
            name: value for name, value in os.environ.items() if name != "PYTHONPATH"
        }  # a package there would count
        begun = time.monotonic()
        done = subprocess.run(
            [*pip, "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), *wanted],
            env=outside, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        if done.returncode:
            raise InvalidInputError(f"{what}: pip cannot install it: {done.stderr.strip()}")
        listed = subprocess.run(
            [*pip, "list", "--format=json"], env=outside, capture_output=True, text=True, check=True
        )
        packages = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
        blocks = sum(file.lstat().st_blocks for file in Path(folder, "lib").rglob("*"))
    builds = {name: packages[name] for name in ("torch",) if name in packages}  # of very different sizes
    return {"op": "install", "what": what, "requirements": list(wanted), "packages": len(packages),
            "mb": round(blocks * 512 / 1e6, 1), "seconds": round(seconds, 1), "builds": builds}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.install", description=__doc__)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"an extra, or {CORE!r} (default: {CORE})")
    parser.add_argument("--packages", action="append", default=[], metavar="LIST", help="requirements, in one argument")
    parser.add_argument("--record", action="store_true", help="append the lines to benchmarks/results/install.jsonl")
    arguments = parser.parse_args()
    lists = {name: requirements(name) for name in arguments.extras or ([] if arguments.packages else [CORE])}
    lists |= {packages: packages.split() for packages in arguments.packages}
    for what, wanted in lists.items():
        given = what if what not in arguments.packages else f"--packages '{what}'"
        line = recorded(measure(what, wanted), f"python -m benchmarks.install {given}")
        print(as_json(line))
        if arguments.record:
            append(FOLDER / "install.jsonl", [line])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InvalidInputError as error:
        sys.exit(f"python -m benchmarks.install: {error}")
