"""`machine` records where and with what a line was measured, alike for every benchmark."""

from __future__ import annotations

import os
import platform
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ipr_engine._version import __version__

from .checkout import commit
from .results import Line

PACKAGES = (
    "numpy", "tokenizers", "onnxruntime", "openvino", "torch", "transformers",
    "model2vec", "sentence-transformers", "semantic-router", "litellm", "routellm",
    "uvicorn", "httptools", "uvloop", "starlette", "aiohttp", "orjson",
)  # fmt: skip


@cache
def machine() -> Line:
    """Return processor, cores, kernel, versions, commit, date."""
    return {
        "machine": f"{_processor()}, Linux {platform.release()}",
        "versions": {"python": platform.python_version(), "ipr_engine": __version__} | versions(PACKAGES),
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def recorded(line: Line, command: str) -> Line:
    """Return the line as it is written: with the machine, its load, and the command that makes the line anew."""
    # A load well above 1: someone else was at work, the figures are worth less.
    return line | machine() | {"load_1m": round(os.getloadavg()[0], 2), "command": command}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Map each package that is installed to its version."""
    return {name: found for name in packages if (found := _version(name)) is not None}


def _processor() -> str:
    """Return the model name with its family and model number: hypervisors hide the name, not the numbers."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    family = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("cpu family", "model\t"))]
    if not names:
        return platform.machine()
    return f"{names[0]} (family {' model '.join(family[:2])}), {len(names)} cores"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
