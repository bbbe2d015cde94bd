"""The tiers that run a transformer on the CPU, as their tests open them, and what openvino can do on this machine."""

from __future__ import annotations

import importlib
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ipr_engine.encoders import openvino as openvino_tier
from ipr_engine.encoders.manifest import Export, ModelOrigin, read_export, write_manifest
from ipr_engine.encoders.tiers import TRANSFORMER_TIERS
from ipr_engine.encoders.transformer import TransformerEncoder
from tests.support import skips
from tests.support.bundles import WORDS

MAX_TOKENS = 48  # of the export and of every encoder that is not told otherwise
PROMPTS = ["what is the story", "x", "Write Python code, and prove it.", "why to explain in " * 9, "naïve 東京 q9", "y"]
REAL_PROMPTS = [*PROMPTS, "Sort a list of 10 numbers in Python; explain each step.\n\n" * 12, "Was ist π·r²? 😀"]
HAS_OPENVINO = find_spec("openvino") is not None
HAS_BFLOAT16 = HAS_OPENVINO and openvino_tier.has_bfloat16(openvino_tier.import_openvino().Core())
needs_openvino = pytest.mark.skipif(not HAS_OPENVINO, reason=skips.OPENVINO)
needs_bfloat16 = pytest.mark.skipif(not HAS_BFLOAT16, reason=skips.BFLOAT16 if HAS_OPENVINO else skips.OPENVINO)


def tier_module(name: str) -> ModuleType:
    return importlib.import_module(f"ipr_engine.encoders.{TRANSFORMER_TIERS[name].encoder.partition(':')[0]}")


def tier_class(name: str) -> Any:
    return getattr(tier_module(name), TRANSFORMER_TIERS[name].encoder.partition(":")[2])


def open_tier(name: str, source: Path, **how: Any) -> TransformerEncoder:
    """Open torch on a model's folder, another tier on an export, on one thread unless told otherwise."""
    encoder: TransformerEncoder
    if name == "torch":
        encoder = tier_class(name).from_folder(source, **{"max_tokens": MAX_TOKENS, **how})
    else:
        encoder = tier_class(name).from_export(source, **{"threads": 1, **how})
    return encoder


def cosines(x: np.ndarray, want: np.ndarray) -> np.ndarray:
    products: np.ndarray = (x * want).sum(axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(want, axis=1))
    return products


def mixed_prompts(rng: np.random.Generator, rows: int = 29) -> list[str]:
    """Return prompts of 0 to 59 words: empty ones, and more than MAX_TOKENS hold."""
    return [" ".join(rng.choice(WORDS, count)) for count in rng.integers(0, 60, rows)]


def copy_export(exported: Path, folder: Path) -> Path:
    """Copy an export into a folder that is there, to be damaged."""
    return shutil.copytree(exported, folder, dirs_exist_ok=True)


def with_files(exported: Path, folder: Path, **files: str) -> Export:
    """Write a copy of an export whose manifest names these files beside config and tokenizer; what is in the folder stays."""
    export = read_export(exported)
    copy_export(exported, folder)
    return write_manifest(
        folder,
        architecture="bert",
        dim=export.dim,
        max_tokens=export.max_tokens,
        spec=export.spec,
        origin=ModelOrigin(export.name),
        files={"tokenizer": "tokenizer.json", "config": "config.json", **files},
        provenance={},
    )
