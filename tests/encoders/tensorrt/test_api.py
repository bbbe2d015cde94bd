"""Which TensorRT is taken, and which is refused."""

from __future__ import annotations

import sys
from collections import deque
from types import SimpleNamespace

import pytest

from ipr_engine.encoders.tensorrt.api import Api, load_api, make_api
from ipr_engine.errors import BackendUnavailableError


def test_an_old_tensorrt_is_refused():
    with pytest.raises(BackendUnavailableError, match=r"tensorrt: expected 10\.13 or later, got 10\.0\.1"):
        make_api("tensorrt", SimpleNamespace(__version__="10.0.1"))


def test_a_tensorrt_that_names_no_gpus_refuses_none():
    api = Api("tensorrt", "11.4.0.1", SimpleNamespace(), None, deque())
    assert api.compute_capabilities is None
    api.require_gpu(SimpleNamespace(compute_capability="9.0"))


def test_stubs_without_the_package_are_no_tensorrt(tmp_path, monkeypatch):
    for name in ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.pyi").touch()
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(BackendUnavailableError, match=r"needs TensorRT: .*install .*\[tensorrt\]'"):
        load_api()
