"""What the compiled kernel says, read in PTX: where it waits, what it tells the host last, no barrier in the loop over tokens."""

from __future__ import annotations

import re

import pytest

from tests.support import skips
from tests.support.cubin_builds import ptx_of


@pytest.fixture(scope="module", params=["sm_80", "sm_90"])
def arch(request):
    pytest.importorskip("triton", reason=skips.GPU)
    return request.param


@pytest.fixture(scope="module")
def last_node(arch):
    """The variant with everything: LayerNorm, pooling, a copy of x, the host told, PDL from sm_90 on."""
    return ptx_of("trunk_fp16_norm_pooled", arch)


def places(lines, pattern):
    return [at for at, line in enumerate(lines) if re.search(pattern, line)]


def loops(lines):
    """Return (first line, last line) between each backward branch and its label."""
    labels = {line.partition(":")[0]: at for at, line in enumerate(lines) if re.match(r"\$L__BB\d+_\d+:", line)}
    branches = [(at, re.search(r"\bbra(?:\.uni)?\s+(\$L__BB\d+_\d+)", line)) for at, line in enumerate(lines)]
    return [(labels[to[1]], at) for at, to in branches if to and labels.get(to[1], at) < at]


def test_the_host_is_told_after_every_store_and_a_barrier(last_node):
    told = places(last_node, r"st\.release\.sys\.global")
    assert len(told) == 1
    assert "@first" in last_node[told[0]]  # one thread
    stores = places(last_node, r"\bst\.global")
    assert max(stores) < told[0]
    answers = [at for at in stores if at < places(last_node, r"\batom\.global")[-1]]
    assert any(max(answers) < at < told[0] for at in places(last_node, r"bar\.sync|barrier\.sync"))
    assert not places(last_node, r"atom\.\S*sys|red\.\S*sys")  # no atomic on the host's memory


def test_programs_count_themselves_in_by_an_acquire_and_release(last_node):
    counted = places(last_node, r"\batom\.\S*add")
    assert len(counted) == 1
    assert re.search(r"atom\.global\.gpu\.acq_rel\.add", last_node[counted[0]])


def test_it_waits_before_it_reads_a_request_and_before_it_stores(last_node, arch):
    waits = places(last_node, r"griddepcontrol\.wait")
    assert len(waits) == (1 if arch == "sm_90" else 0)
    if waits:
        before = places(last_node[: waits[0]], r"\bld\.global")
        assert len(before) == 4  # the heads' vectors, which no kernel of a graph writes
        assert not places(last_node[: waits[0]], r"\bst\.global|\batom|\bred\.")


def test_the_loop_over_tokens_has_no_barrier(last_node):
    over_tokens = [loop for loop in loops(last_node) if places(last_node[slice(*loop)], r"\bshfl\.")]
    assert len(over_tokens) == 1  # the sums of a LayerNorm go from lane to lane
    assert not places(last_node[slice(*over_tokens[0])], r"bar\.sync|barrier\.sync|st\.shared")


def test_what_is_not_asked_for_is_not_there(arch):
    plain = ptx_of("trunk", arch)
    assert not places(plain, r"griddepcontrol|\.sys\b|\batom|st\.release")
