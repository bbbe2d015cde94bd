"""The table of tiers: every row leads to a class that opens exports, and reading the table imports none of them."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ipr_engine.bundle.encoder_entry import DTYPES
from ipr_engine.encoders.tiers import AUTO, FOLDER_TIER, TIERS, TIMED, TRANSFORMER_TIERS

PLACES = [
    place for tier in TRANSFORMER_TIERS.values() for place in (tier.encoder, tier.gpu_encoder) if place is not None
]


@pytest.mark.parametrize("place", PLACES)
def test_a_row_names_a_class_that_opens_exports(place):
    module, _, name = place.partition(":")
    encoder = getattr(importlib.import_module(f"ipr_engine.encoders.{module}"), name)
    assert callable(encoder.open_export)


def test_every_tier_but_triton_is_tried_somewhere_by_auto_and_auto_tries_no_other():
    by_name_alone = {"triton"}  # it has never run on a GPU (docs/gpu.md)
    assert {name for order in AUTO.values() for name in order} == set(TRANSFORMER_TIERS) - by_name_alone
    assert ("auto", *TRANSFORMER_TIERS) == TIERS
    assert FOLDER_TIER in TRANSFORMER_TIERS
    assert set(TIMED) <= set(AUTO["cpu"])


def test_an_arithmetic_with_a_name_is_one_that_a_bundle_can_name_and_has_one_tier():
    """So that the heads' identity tells who can serve them."""
    served = [dtype for tier in TRANSFORMER_TIERS.values() for dtype in tier.roles if dtype is not None]
    assert sorted(served) == sorted(DTYPES)


def test_the_registry_imports_no_tier_before_one_is_asked_for():
    code = "import sys, ipr_engine.encoders.registry; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "ipr_engine.encoders.tiers" in loaded
    modules = {f"ipr_engine.encoders.{place.partition(':')[0]}" for place in PLACES}
    assert not loaded & {*modules, "torch", "onnxruntime", "openvino", "tensorrt"}
