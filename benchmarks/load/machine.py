"""Where and with what a run was made, for every recorded line."""

from __future__ import annotations

import platform
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.checkout import commit

PACKAGES = (
    "numpy", "tokenizers", "onnxruntime", "openvino", "torch", "transformers",
    "model2vec", "sentence-transformers", "semantic-router", "litellm", "routellm",
)  # fmt: skip


@cache
def machine() -> dict[str, Any]:
    """Processor, cores, kernel, versions, commit, date."""
    from ipr_engine._version import __version__

    return {
        "machine": f"{_processor()}, Linux {platform.release()}",
        "versions": {"python": platform.python_version(), "ipr_engine": __version__}
        | {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """Model name with its family and model number: hypervisors hide the name, not the numbers."""
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
