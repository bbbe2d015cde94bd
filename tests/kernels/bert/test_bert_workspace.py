"""Launches that take turns share one workspace, and what a larger one left there changes no bit of a smaller one's states."""

from __future__ import annotations

import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.kernels.bert import BertLaunch
from tests.support.bert_models import DEVICE, make_bert, make_ids, plan_of, run, torch


def launch(workspace, lengths):
    ids = make_ids(lengths, max(lengths))
    given = torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    return BertLaunch(plan_of(make_bert()), ids, given, *ids.shape, workspace=workspace)


def test_what_another_launch_left_in_the_workspace_changes_no_bit():
    large, small = (20, 3, 7), (5, 9)
    size = BertLaunch.workspace_bytes(plan_of(make_bert()), len(large), max(large))
    shared = torch.full((size,), 255, dtype=torch.uint8, device=DEVICE)  # NaN, read as float16
    launches = {lengths: launch(shared, lengths) for lengths in (large, small)}
    for lengths in (large, small, large):
        found = launches[lengths]().cpu().numpy()
        assert found.tobytes() == run(make_bert(), lengths).tobytes()
    assert {one.states.data_ptr() for one in launches.values()} == {shared.data_ptr()}


def test_a_workspace_is_as_large_as_the_formula_says():
    plan = plan_of(make_bert(64, wide=128))
    assert BertLaunch.workspace_bytes(plan, 8, 16) == 8 * 16 * (3 * 64 + 128) * 2
    assert BertLaunch.workspace_bytes(plan, 1, 1) == 4 * 256  # each buffer begins at a multiple of 256 bytes


@pytest.mark.parametrize(
    ("workspace", "told"),
    [
        (torch.zeros(99, dtype=torch.uint8), r"of 6400 bytes or more \(BertLaunch\.workspace_bytes\), got .* \(99,\)"),
        (torch.zeros(6400, dtype=torch.float16), "uint8 tensor of 6400 bytes or more .* got torch.float16"),
        (torch.zeros((1, 6400), dtype=torch.uint8), "uint8 tensor of 6400 bytes or more"),
        (torch.zeros(12800, dtype=torch.uint8)[::2], "contiguous uint8 tensor of 6400 bytes"),
        (torch.zeros(6401, dtype=torch.uint8)[1:], "an address that is a multiple of 16"),
        (torch.zeros(6400, dtype=torch.uint8, device="meta"), "expected a tensor on .*, got one on meta"),
    ],
)
def test_a_workspace_that_does_not_fit_is_refused(workspace, told):
    workspace = workspace if workspace.device.type == "meta" else workspace.to(DEVICE)
    with pytest.raises(InvalidInputError, match=f"^workspace: .*{told}"):
        launch(workspace, (5, 3))
