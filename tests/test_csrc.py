"""The C++ sources keep what the design says of their rooms; what they compute is tested where it is used."""

import re
import sys

import pytest

from ipr_engine import _C
from tests.support.places import ROOT

CSRC = ROOT / "csrc"
HEADERS = sorted((CSRC / "include" / "ipr").glob("*.h"))
KERNELS = sorted((CSRC / "src" / "simd").glob("*"))
INCLUDE = re.compile(r'#include ["<]([\w./]+)[">]')


def names(paths):
    return [path.name for path in paths]


def test_there_are_public_headers():
    assert "decide.h" in names(HEADERS)


@pytest.mark.parametrize("header", HEADERS, ids=names(HEADERS))
def test_a_public_header_is_more_than_half_comment(header):
    lines = [line.strip() for line in header.read_text().splitlines() if line.strip()]
    comments = sum(line.startswith("//") for line in lines)
    assert 2 * comments > len(lines), f"{header.name}: {comments} of {len(lines)} lines are comments"


@pytest.mark.parametrize("header", HEADERS, ids=names(HEADERS))
def test_a_public_header_includes_no_private_one(header):
    quoted = re.findall(r'#include "([^"]+)"', header.read_text())
    assert all(name.startswith("ipr/") for name in quoted), quoted


@pytest.mark.parametrize("source", KERNELS, ids=names(KERNELS))
def test_what_is_compiled_for_one_instruction_set_includes_no_standard_container(source):
    allowed = {"cstddef", "cstdint", "cstring", "immintrin.h", "emmintrin.h"}
    angled = set(re.findall(r"#include <([^>]+)>", source.read_text()))
    assert angled <= allowed, angled - allowed


def test_the_bindings_reach_the_sources_through_public_headers_only():
    for path in sorted((CSRC / "python").glob("*")):
        own = {
            name for name in INCLUDE.findall(path.read_text()) if "/" not in name and not name.startswith("pybind11")
        }
        assert not own & {other.name for other in (CSRC / "src").rglob("*.h")}, path.name


def test_the_extension_declares_that_it_needs_the_interpreters_lock():
    assert "py::mod_gil_not_used(false)" in (CSRC / "python" / "bindings.cpp").read_text()
    locked = getattr(sys, "_is_gil_enabled", lambda: True)  # a free-threaded Python takes its lock back for _C
    assert _C.__name__ == "ipr_engine._C"
    assert locked()
