"""Bundles whose tokenizer.json C++ does not reproduce: it has an added token that is not special."""

from __future__ import annotations

import json
from pathlib import Path

from ipr_engine.bundle import BundleParts, write_bundle
from tests.support.bundles import bundle_parts


def add_token(tokenizer: Path) -> None:
    """Add a token to a tokenizer.json that is cut out of a text before its normalizer runs."""
    tree = json.loads(tokenizer.read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tree["added_tokens"] = [{"id": tree["model"]["vocab"]["python"], "content": "python", **flags}]
    tokenizer.write_text(json.dumps(tree))


def library_bundle(folder: Path) -> Path:
    """Write a bundle that is served by the `tokenizers` library alone."""
    parts = bundle_parts(folder / "sources")
    add_token(folder / "sources" / "encoder" / "tokenizer.json")
    return write_bundle(folder / "bundles", BundleParts(**parts))
