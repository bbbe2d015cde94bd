"""Compiled ahead, no kernel of the encoder spills, and each fits its architecture.

The build runs in a process of its own, since this one may run Triton's interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ipr_engine.kernels.bert.bert_build import SHAPES
from tests.support import skips

LIMIT = {
    "sm_80": 163 << 10,
    "sm_90": 227 << 10,
    "sm_100": 227 << 10,
}  # shared memory of a program (CUDA programming guide, table 27)
KERNELS = {"embed", "attend", "project", "project_wide", "expand"}


def build(*arguments):
    pytest.importorskip("triton", reason=skips.GPU)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "ipr_engine.kernels.bert.bert_build", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def check(shape, arch):
    done = build("--arch", arch, "--shape", shape)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for rows in ("few", "some", "many"):
        assert {line["kernel"] for line in lines if line["rows"] == rows} == KERNELS
    for line in lines:
        assert (line["stack_bytes"], line["local_bytes"]) == (0, 0), line
        assert 0 < line["registers"] <= 255
        assert line["registers"] * line["threads"] <= 1 << 16
        assert line["shared_bytes"] <= LIMIT[arch]


def test_the_kernels_of_minilm_do_not_spill_on_hopper():
    check("384x32", "sm_90")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "arch"), [(shape, arch) for shape in SHAPES for arch in LIMIT if (shape, arch) != ("384x32", "sm_90")]
)
def test_no_kernel_spills(shape, arch):
    check(shape, arch)


def test_an_unknown_shape_is_refused():
    done = build("--arch", "sm_90", "--shape", "400x32")
    assert done.returncode == 2
    assert "invalid choice: '400x32'" in done.stderr
