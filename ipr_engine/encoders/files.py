"""Reading an encoder's files: whole, or as JSON, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ipr_engine.errors import BundleFormatError, BundleNotFoundError


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file; BundleNotFoundError if there is none."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise BundleNotFoundError(f"{path}: no such file") from error


def parse_json(path: str | Path, data: bytes) -> Any:
    """Return what the bytes of a JSON file say; path is for the message of BundleFormatError."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise BundleFormatError(f"{path}: not JSON in UTF-8: {error}") from error
