"""A row's states are the same bits alone and in any batch, in any bucket that holds it: in the interpreter, dots in order."""

from __future__ import annotations

from functools import cache

import pytest

from tests.support import skips, triton_interpreter
from tests.support.bert_models import ON_DEVICE, TABLES, make_bert, make_ids, make_launch, torch

BUCKETS = (16, 32, 64, 128, 256, 512)
OTHERS = (7, 64, 90, 1)


@pytest.fixture(autouse=True)
def order():
    with triton_interpreter.dots_in_order():
        yield


def bits(model, length, table, tokens, batch=1, at=0):
    """Return the bits of a generated row of `length` ids, as row `at` of a batch padded to `tokens`."""
    lengths = [min(OTHERS[row % len(OTHERS)], tokens) for row in range(batch)]
    ids = make_ids(lengths, tokens, seed=batch)
    lengths[at] = length
    ids[at] = make_ids([length], tokens, seed=9)[0]
    return make_launch(model, ids, lengths, TABLES[table])()[at, :length].cpu().numpy().tobytes()


@cache
def alone(length, table):
    return bits(make_bert(), length, table, length)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("tokens", BUCKETS)
def test_a_row_does_not_depend_on_its_bucket(table, tokens):
    assert bits(make_bert(), 13, table, tokens) == alone(13, table)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("length", "tokens"), [(16, 17), (64, 65), (64, 128), (65, 128), (100, 257), (129, 257), (257, 512)]
)
def test_a_longer_row_does_not_depend_on_its_bucket(table, length, tokens):
    assert bits(make_bert(), length, table, tokens) == alone(length, table)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(("batch", "at"), [(2, 1), (3, 0), (17, 11)])
def test_a_row_does_not_depend_on_its_batch(table, batch, at):
    assert bits(make_bert(), 13, table, 16, batch, at) == alone(13, table)


@pytest.mark.slow
@pytest.mark.parametrize(("dim", "head", "table"), [(384, 32, "few"), (384, 32, "many"), (768, 64, "some")])
def test_rows_of_the_usual_widths_depend_on_neither(table, dim, head):
    model = make_bert(dim, head, 1, dim)
    assert bits(model, 17, table, 32, 2, 1) == bits(model, 17, table, 17)


@pytest.mark.skipif(ON_DEVICE, reason=f"{skips.HARDWARE} the interpreter: on a GPU the tables take other instructions")
@pytest.mark.parametrize("length", [13, 65])
def test_the_tables_add_up_in_the_same_order(length):
    assert len({alone(length, table) for table in TABLES}) == 1


def test_other_ids_give_other_states():
    model = make_bert()
    ids = make_ids([13], 16)
    other = ids.clone()
    other[0, 12] = (other[0, 12] + 1) % 211
    found = [make_launch(model, some, [13])()[0, :13] for some in (ids, other)]
    assert not bool(torch.equal(*found))
