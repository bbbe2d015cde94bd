"""The fused encoder keeps the gate against float64, on sizes off the tile edge, and touches what is its own alone."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.kernels.bert import BertLaunch
from ipr_engine.kernels.bert.bert_tiles import bert_tiles
from tests.support import skips, triton_interpreter
from tests.support.bert_models import (
    DEVICE,
    GATE,
    ON_DEVICE,
    TABLES,
    exact,
    last_norm,
    least_cosine,
    make_bert,
    make_ids,
    make_launch,
    plan_of,
    run,
    torch,
)
from tests.support.wordpieces import minilm_json

# The tables differ in the tiles of the products, and not in those of attention: the other head meets one of them.
OTHER_HEADS = [(384, 64, 1536, "many"), (768, 32, 3072, "many")]
# In so wide a layer the interpreter takes its time with small tiles: they meet the same columns in fewer loops.
WIDEST = [(1024, 64, 4096, "many"), (1024, 64, 1024, "some"), (1024, 64, 1024, "few")]
SIZES = [(*size, table) for size in ((384, 32, 1536), (768, 64, 3072), (320, 64, 1280)) for table in TABLES]


def check(model, lengths, tokens=None, tiles=None):
    found = run(model, lengths, tokens, tiles)
    assert np.isfinite(found).all()
    ids = make_ids(lengths, tokens or max(lengths))
    for row, length in enumerate(lengths):
        if length:
            assert least_cosine(last_norm(model, found[row, :length]), exact(model, ids[row, :length])) >= GATE


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("lengths", "dim", "layers"), [((1,), 128, 2), ((17, 3, 1), 192, 1), ((63,), 64, 2), ((65, 64), 64, 1)]
)
def test_states_keep_the_gate(table, lengths, dim, layers):
    check(make_bert(dim, layers=layers, wide=2 * dim), lengths, tiles=TABLES[table])


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("act", ["gelu_new", "relu"])
def test_other_activations_keep_the_gate(table, act):
    check(make_bert(64, 64, act=act), (5,), tiles=TABLES[table])


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "head", "wide", "table"), [*SIZES, *OTHER_HEADS, *WIDEST])
def test_every_width_keeps_the_gate(dim, head, wide, table):
    check(make_bert(dim, head, 1, wide), (17,), tiles=TABLES[table])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lengths", "table"),
    [
        ((511, 1), "many"),
        *((lengths, table) for lengths in ((129,), (257, 1), tuple(range(1, 18))) for table in TABLES),
    ],
)
def test_long_rows_and_many_rows_keep_the_gate(lengths, table):
    check(make_bert(), lengths, tiles=TABLES[table])


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(16,), (40,)])
def test_minilm_keeps_the_gate(lengths):
    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    from transformers import AutoModel

    model = AutoModel.from_pretrained(path.parent, dtype=torch.float32).eval()
    check(model, lengths)


@pytest.fixture
def in_order():
    """Give the interpreter's dots one order of sums, where states of other shapes are compared to the bit."""
    with triton_interpreter.dots_in_order():
        yield


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("table", TABLES)
def test_an_empty_row_is_finite_and_changes_no_other(table):
    model = make_bert()
    lengths = (3, 0, 20)
    ids = make_ids(lengths, 20)
    with triton_interpreter.dots_in_order():
        found = run(model, lengths, 20, TABLES[table])
        alone_of = {
            row: make_launch(model, ids[row : row + 1].clone(), lengths[row : row + 1], TABLES[table])().cpu().numpy()
            for row in (0, 2)
        }
    assert np.isfinite(found).all()
    for row, alone in alone_of.items():
        assert found[row, : lengths[row]].tobytes() == alone[0, : lengths[row]].tobytes()


@pytest.mark.usefixtures("in_order")
def test_ids_and_lengths_that_nobody_filled_are_harmless():
    model = make_bert()
    ids = make_ids((6, 6), 6)
    ids[1] = torch.tensor([2**31 - 1, -(2**31), 0, 1, 2, 3], dtype=torch.int32)
    found = make_launch(model, ids, (6, -7))()
    assert bool(torch.isfinite(found).all())
    assert found[0].cpu().numpy().tobytes() == run(model, (6,))[0].tobytes()


def test_a_second_call_gives_the_same_bits():
    launch = make_launch(make_bert(), make_ids((7,), 7), (7,))
    first = launch().clone()
    assert bool((launch() == first).all())


def test_the_first_kernel_copies_the_request_and_reads_the_ids_in_it():
    model, lengths = make_bert(), (5, 9)
    batch, tokens, size = 2, 9, 1000
    source = torch.arange(size, dtype=torch.int32, pin_memory=ON_DEVICE)
    source[: batch * tokens] = make_ids(lengths, tokens).cpu().view(-1)
    at = slice(batch * tokens, batch * tokens + batch)
    source[at] = torch.tensor(lengths, dtype=torch.int32)
    target = torch.full((size,), -1, dtype=torch.int32, device=DEVICE)
    ids = source[: batch * tokens].view(batch, tokens)
    launch = BertLaunch(plan_of(model), ids, target[at], batch, tokens, copy=(source, target))
    found = launch()
    assert bool((target.cpu() == source).all())
    assert found.cpu().numpy().tobytes() == run(model, lengths).tobytes()


def test_the_number_of_kernels_is_told():
    model = make_bert(layers=2)
    ids = make_ids((4,), 4)
    for tiles in TABLES.values():
        assert make_launch(model, ids, (4,), tiles).nodes == 1 + 4 * 2


@pytest.mark.parametrize("arch", [None, "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("head", [32, 64])
def test_the_table_goes_by_the_number_of_rows(arch, head):
    assert bert_tiles(64, arch, head).rows == "few"
    assert bert_tiles(8 * 64, arch, head).rows == "some"
    assert bert_tiles(512 * 64, arch, head).rows == "many"
