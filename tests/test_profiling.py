"""Ranges for a profiler: nothing until they are asked for, and under the names of the benchmark's columns."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from ipr_engine import _profiling as profiling
from ipr_engine.errors import BackendUnavailableError
from tests.support.transformer_folders import import_torch


def is_off():
    """Whether spans are one empty context."""
    return isinstance(profiling.span("encode"), nullcontext) and profiling.span("encode") is profiling.span("decide")


def test_a_range_is_one_empty_context_until_it_is_enabled():
    assert is_off()
    with profiling.span("encode"):
        pass


def test_the_environment_is_read_when_something_is_planned_and_zero_is_off(monkeypatch):
    monkeypatch.setenv("IPR_NVTX", "0")
    profiling.enable_from_environment()
    assert is_off()


def test_asked_for_they_are_marked_or_refused_never_ignored(monkeypatch):
    torch, _ = import_torch()
    monkeypatch.setenv("IPR_NVTX", "1")
    if torch.cuda.is_available():
        profiling.enable_from_environment()
        monkeypatch.setattr(torch.cuda.nvtx, "range", lambda name: f"NVTX's {name}")
        assert profiling.span("encode") == "NVTX's encode"
        profiling.disable()
        return
    with pytest.raises(BackendUnavailableError, match="NVTX ranges need torch built with CUDA"):
        profiling.enable_from_environment()
    assert is_off()
