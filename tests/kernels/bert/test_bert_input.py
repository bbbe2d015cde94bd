"""What does not fit is refused by name, before anything is launched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.bert import BertLaunch, BertPlan
from ipr_engine.kernels.bert.bert_forms import BertForms, BertShape
from ipr_engine.kernels.bert.bert_tiles import ProductTile, bert_tables
from tests.support.bert_models import DEVICE, TABLES, make_bert, make_ids, plan_of, run, torch, transformers


def config(**changes):
    return transformers.BertConfig(
        **({"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "vocab_size": 9} | changes)
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden_act": "silu"}, "hidden_act: expected one of gelu, relu"),
        ({"hidden_size": 96, "num_attention_heads": 3}, "hidden_size: expected a multiple of 64 up to 1024, got 96"),
        ({"hidden_size": 2048, "num_attention_heads": 32, "intermediate_size": 4096}, "hidden_size"),
        ({"num_attention_heads": 8}, "num_attention_heads: expected heads of 32 or 64 elements, got 128 / 8"),
        ({"intermediate_size": 64}, "intermediate_size: expected a multiple of 64 from hidden_size 128, got 64"),
        ({"is_decoder": True}, "is_decoder"),
        ({"vocab_size": 2**24}, "vocab_size"),
    ],
)
def test_a_config_that_does_not_fit_says_why(changes, told):
    assert told in BertPlan.unfit(config(**changes))


def test_relative_positions_do_not_fit():
    relative = config()
    relative.position_embedding_type = "relative_key"
    assert "position_embedding_type: expected 'absolute'" in BertPlan.unfit(relative)


def test_another_architecture_does_not_fit():
    assert BertPlan.unfit(transformers.RobertaConfig()) == "model_type: expected 'bert', got 'roberta'"


def test_bert_fits():
    assert BertPlan.unfit(config()) == ""
    assert BertPlan.unfit(transformers.BertConfig()) == ""


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(InvalidInputError, match="model: hidden_act: expected one of"):
        BertPlan(transformers.BertModel(config(hidden_act="silu", num_hidden_layers=1)), DEVICE)
    with pytest.raises(InvalidInputError, match="dtype: expected 'float16', got 'bfloat16'"):
        BertPlan(make_bert(), DEVICE, "bfloat16")


def test_weights_outside_of_float16_are_refused():
    model = transformers.BertModel(config(num_hidden_layers=1))
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] = 1e5
    with pytest.raises(InvalidInputError, match=r"model: encoder\.layer\.0\.output\.dense has weights outside"):
        BertPlan(model, DEVICE)


def launch(**changes):
    plan = plan_of(make_bert())
    given = {
        "plan": plan, "ids": make_ids((3, 2), 5), "lengths": torch.ones(2, dtype=torch.int32, device=DEVICE),
        "batch": 2, "tokens": 5,
    }  # fmt: skip
    return BertLaunch(**(given | changes))


def int32s(count):
    return torch.zeros(count, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tokens": 513}, "tokens: expected 1 to 512, the model's positions, got 513"),
        ({"tokens": 0}, "tokens: expected 1 to 512"),
        ({"batch": 0}, "batch: expected 1 or more"),
        ({"batch": 2**24}, "batch: expected 1 or more, and batch"),
        ({"batch": 3}, r"ids: expected a contiguous int32 tensor of shape \(3, 5\), got torch.int32 \(2, 5\)"),
        ({"ids": torch.zeros((2, 5), dtype=torch.int64)}, "ids: expected a contiguous int32 tensor"),
        ({"lengths": torch.ones(2, dtype=torch.int64)}, "lengths: expected a contiguous int32 tensor"),
        ({"copy": (int32s(4), int32s(5))}, r"copy\[1\]: expected 4 int32, as copy\[0\] has, got 5"),
        ({"copy": (torch.zeros(4), int32s(4))}, r"copy\[0\]: expected a contiguous int32 tensor of one dimension"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, told):
    with pytest.raises(InvalidInputError, match=told):
        launch(**changes)


@pytest.mark.parametrize(("name", "value"), [("rows", 8), ("cols", 48), ("depth", 512), ("stages", 0)])
def test_tiles_outside_of_the_bounds_are_refused(name, value):
    few = TABLES["few"]
    with pytest.raises(InvalidInputError, match=rf"project\.{name}: expected"):
        replace(few, project=replace(few.project, **{name: value}))


@pytest.mark.parametrize(("dim", "head", "wide"), [(64, 32, 128), (64, 64, 320), (192, 64, 768), (320, 64, 1280)])
def test_tiles_are_halved_until_they_divide_what_they_write(dim, head, wide):
    tile = ProductTile(rows=16, cols=256, depth=256, warps=4, stages=2)
    tiles = replace(TABLES["few"], project=tile, expand=tile)
    shape = BertShape(dim=dim, head=head, wide=wide, activation="gelu", eps=1e-12)
    forms = BertForms(shape, tiles, pdl=False)
    expand, project = forms.expand(), forms.project(wide)
    assert wide % expand["BLOCK_N"] == 0
    assert dim % expand["BLOCK_N"] == 0  # columns of x that the same program writes
    assert (dim % project["BLOCK_N"], wide % project["BLOCK_K"], dim % expand["BLOCK_K"]) == (0, 0, 0)


def test_other_tiles_give_the_same_states():
    tile = ProductTile(rows=32, cols=256, depth=256, warps=4, stages=2)
    model = make_bert(64, 32, wide=320)
    tiles = replace(TABLES["few"], project=tile, expand=tile)
    np.testing.assert_allclose(
        run(model, (3,), tiles=tiles).astype(np.float32), run(model, (3,)).astype(np.float32), rtol=0, atol=0.05
    )


@pytest.mark.parametrize("arch", [None, "sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("head", [32, 64])
def test_what_fixes_the_order_of_sums_is_the_same_in_all_tables(arch, head):
    tables = bert_tables(arch, head).values()
    assert len({(tiles.attention.depth, tiles.expand.depth) for tiles in tables}) == 1
