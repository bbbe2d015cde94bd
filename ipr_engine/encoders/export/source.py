"""Where a model comes from: a folder on this machine, or a repository of the Hugging Face hub at one revision."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ipr_engine._extras import need
from ipr_engine.encoders.files import parse_json, read_bytes
from ipr_engine.errors import BundleNotFoundError, InvalidInputError

# Weights in safetensors, tokenizer and settings: nothing that runs, nothing pickled.
_PATTERNS = ("*.json", "*.safetensors", "*/config.json")
_IGNORED = ("onnx/*", "openvino/*")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Source:
    """folder: the files. name: what the manifest calls it. revision: the hub's commit, None for a folder."""

    folder: Path
    name: str
    revision: str | None


def find_source(source: str, revision: str | None = None) -> Source:
    """Take a folder as it is; download a hub id (or take it from the hub's cache) at a revision.

    Raises:
        InvalidInputError: source is neither a folder nor a hub id, or revision comes with a folder.
        BackendUnavailableError: huggingface_hub is missing here.
        BundleNotFoundError: the hub has no such model or revision, or cannot be reached and the cache lacks it.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise InvalidInputError(f"revision: {source} is a folder, which has none; got {revision!r}, leave it out")
        return Source(folder, folder.resolve().name, None)
    if not _HUB_ID.fullmatch(source):
        raise InvalidInputError(
            f"source: {source!r} is neither a folder here nor a hub id such as 'sentence-transformers/all-MiniLM-L6-v2'"
        )
    hub = need("huggingface_hub", "downloading from the hub", "export")
    try:
        found = Path(
            hub.snapshot_download(source, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_IGNORED)
        )
    except (OSError, ValueError, RuntimeError) as error:  # its HTTP errors are OSError, LocalEntryNotFoundError too
        reason = str(error).strip().partition("\n")[0]
        at = "" if revision is None else f" at revision {revision}"
        raise BundleNotFoundError(
            f"source: {source}{at}: the hub did not give it ({type(error).__name__}: {reason}); "
            "offline, pass a folder that holds the model"
        ) from error
    return Source(found, source, found.name if _COMMIT.fullmatch(found.name) else revision)


def max_tokens_of(folder: Path, positions: int | None, default: int = 512) -> int:
    """Return how long a prompt the model was made for: sentence-transformers' max_seq_length, at most `default` and `positions`."""
    limits = [default] if positions is None else [default, positions]
    settings = folder / "sentence_bert_config.json"
    if settings.exists():
        value = parse_json(settings, read_bytes(settings))
        stated = value.get("max_seq_length") if isinstance(value, dict) else None
        if type(stated) is int and stated > 0:
            limits.append(stated)
    return min(limits)


def check_out(out: Path) -> None:
    """Refuse a folder to write that exists and is not empty, or whose parent does not exist."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInputError(f"out: {out} exists already; remove it, or write to another folder")
    if not out.absolute().parent.is_dir():
        raise InvalidInputError(f"out: {out.absolute().parent} is no folder; make it first")
