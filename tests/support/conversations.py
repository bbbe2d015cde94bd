"""Bundles whose heads are not given every turn of a user as one text, and conversations for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.bundle.conversation import Conversation


def given_turns(folder: Path, parts: Mapping[str, Any], conversation: Conversation) -> Path:
    """Write a bundle of these arguments of `write_bundle`, whose heads are given this of several turns; return its folder."""
    heads = [replace(head, conversation=conversation) for head in parts["heads"]]
    return write_bundle(folder / "bundles", BundleParts(**{**parts, "heads": heads}))


def chat(turns: Sequence[str]) -> list[dict[str, str]]:
    """Return messages in which an answer stands between any two turns of the user."""
    said: list[dict[str, str]] = [{"role": "system", "content": "be brief"}]
    for turn in turns:
        said += [{"role": "user", "content": turn}, {"role": "assistant", "content": "it is so"}]
    return said[:-1]
