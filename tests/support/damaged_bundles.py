"""A damaged bundle is edited so that one thing of it is wrong; beside it stands the error that it must raise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from ipr_engine.bundle import Bundle

HEADS, TABLE, SUPPORT, PRICES = (
    "heads/static.safetensors",
    "encoders/static/model.safetensors",
    "support.safetensors",
    "prices.json",
)
CONFIG, TOKENIZER = "encoders/static/config.json", "encoders/static/tokenizer.json"
Edit = Callable[[Any], Any]


def file_entry(manifest: dict[str, Any], relative: str) -> dict[str, Any]:
    return {
        HEADS: manifest["heads"][0]["weights"],
        PRICES: manifest["prices"],
        SUPPORT: manifest["support"]["weights"],
        TABLE: manifest["encoders"][0]["files"]["table"],
        CONFIG: manifest["encoders"][0]["files"]["config"],
        TOKENIZER: manifest["encoders"][0]["files"]["tokenizer"],
    }[relative]


def edit_manifest(folder: Path, edit: Edit) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    edit(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def replace(folder: Path, relative: str, data: bytes) -> None:
    """Put other bytes in, and state their true size and hash: what is left is a fault of the content."""
    (folder / relative).write_bytes(data)
    stated = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    edit_manifest(folder, lambda manifest: file_entry(manifest, relative).update(stated))


def edit_json(folder: Path, relative: str, edit: Edit) -> None:
    document = json.loads((folder / relative).read_text())
    edit(document)
    replace(folder, relative, json.dumps(document).encode())


def edit_tensors(folder: Path, relative: str, edit: Edit) -> None:
    tensors = load_file(folder / relative)
    edit(tensors)
    replace(folder, relative, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))


def raises(error: type[Exception], path: object, *named: str) -> None:
    with pytest.raises(error) as caught:
        Bundle.load(path)  # type: ignore[arg-type]
    message = str(caught.value)
    assert type(caught.value) is error, message
    for part in (*named, "expected", "got", "; "):
        assert part in message, f"{part!r} is not in {message!r}"


def put(*path: str | int, value: Any) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return edit


def drop(*path: str | int) -> Edit:
    def edit(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        del document[path[-1]]

    return edit


def twice(key: str) -> Edit:
    return lambda document: document[key].append(document[key][0])
