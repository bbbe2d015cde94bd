"""`commit` tells which commit a checkout holds, for what is recorded."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of this checkout; of an installation, a folder that is none
CARRIED = "COMMIT"  # the file that tells it in a tree without its repository: benchmarks/gpu/pack.py writes it


def commit(root: Path = ROOT) -> str | None:
    """Return the commit of a working tree, "+changes" where files of it were changed; None where `root` is no checkout."""
    if not (root / ".git").exists():
        carried = root / CARRIED
        return carried.read_text().strip() if carried.is_file() else None
    found = head(root)
    return found and found + ("+changes" if _git(root, "status", "--porcelain", "-uno") else "")


def head(root: Path) -> str | None:
    """Return the commit that was checked out, whatever was changed since."""
    return _git(root, "rev-parse", "--short=12", "HEAD")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
