"""Candidates of these bundles count tokens by profiles of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.tokens.profiles import shipped_profile
from tests.support.bundles import bundle_parts

WINDOWS = (900, None, 400, 4000, 120)
MOST = (None, 300, 40, None, 2000)
PROFILES = ("o200k_base", None, "claude_2", "o200k_base", "bpe")
RUSSIAN = "Почему небо голубое? " * 6


def tokenized_parts(folder: Path, profiles: Sequence[str | None] = PROFILES, **shape: Any) -> dict[str, Any]:
    """Return arguments of `write_bundle`, a candidate a profile; None: its tokens are the bundle's times its ratio."""
    parts = bundle_parts(folder, models=len(profiles), dim=16, **shape)
    parts["candidates"] = [
        replace(candidate, tokenizer=None if name is None else shipped_profile(name))
        for candidate, name in zip(parts["candidates"], profiles, strict=True)
    ]
    return parts


def tokenized(folder: Path, profiles: Sequence[str | None] = PROFILES, **shape: Any) -> Bundle:
    return Bundle.load(write_bundle(folder / "bundles", BundleParts(**tokenized_parts(folder, profiles, **shape))))


def limited(
    folder: Path,
    windows: Sequence[int | None] = WINDOWS,
    most: Sequence[int | None] = MOST,
    profiles: Sequence[str | None] = PROFILES,
    **shape: Any,
) -> Bundle:
    """Candidates have windows, most output tokens, and features or none, beside tokenizers of their own."""
    parts = tokenized_parts(folder, profiles, context_windows=windows, **shape)
    parts["candidates"] = [
        replace(candidate, max_output_tokens=tokens)
        for candidate, tokens in zip(parts["candidates"], most, strict=True)
    ]
    return Bundle.load(write_bundle(folder / "limited", BundleParts(**parts)))
