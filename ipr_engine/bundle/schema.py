"""What each schema_version of bundle.json added, and a manifest in a later one. The least that holds a bundle is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# 2: calibrations, prompt hashes; 3: other encoders, escalation; 4: max_output_tokens; 5: path rows, tested taus, keyed
# hashes; 6: prices that say more than those of tokens and requests, candidates' tokenizers, path rows' tokens_in;
# 7: candidates' performance.
SCHEMA_VERSIONS = (1, 2, 3, 4, 5, 6, 7)


def raised(manifest: Mapping[str, Any], version: int) -> dict[str, Any]:
    """The manifest in this schema_version, or as it is where its own is as late: what is new says nothing."""
    if manifest["schema_version"] >= version:
        return dict(manifest)
    newer = {**manifest, "schema_version": version}
    if version >= 2:
        heads = manifest["heads"]
        newer["heads"] = [{**head, "fitted_on": {"prompt_hashes": None, **head["fitted_on"]}} for head in heads]
    if version >= 3:
        newer.setdefault("escalation", None)
    if version >= 4:
        newer["candidates"] = [{"max_output_tokens": None, **candidate} for candidate in manifest["candidates"]]
    if version >= 5:
        newer.setdefault("path_rows", None)
    return newer
