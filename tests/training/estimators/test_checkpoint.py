"""A run folder: whole files only, one run only, damage told and computed again."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.estimators.checkpoint import STATE, RunState, RunStateWarning

TENSORS = {"weights": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(3.5, np.float32)}
FACTS = {"epochs": 7, "loss": 0.1, "done": False, "best": None}


@pytest.fixture
def folder(tmp_path):
    """A run of two units."""
    run = RunState(tmp_path / "run", "key one")
    run.save("fold-0", TENSORS, FACTS)
    run.save("fold-1", {"weights": np.ones(2)}, {"done": True})
    return tmp_path / "run"


def unit_file(folder, unit):
    return folder / json.loads((folder / STATE).read_text())["units"][unit]["file"]


def assert_kept(run):
    tensors, facts = run.load("fold-0")
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(tensors[name], tensor)


def test_what_was_saved_is_loaded(folder):
    run = RunState(folder, "key one")
    assert_kept(run)
    assert run.load("fold-2") is None


def test_a_later_save_takes_the_place_of_the_earlier(folder):
    run = RunState(folder, "key one")
    run.save("fold-0", {"weights": np.zeros(1)}, {"epochs": 8})
    run.save("fold-0", {"weights": np.zeros(1)}, {"epochs": 8})  # the same once more keeps its file
    assert RunState(folder, "key one").load("fold-0")[1] == {"epochs": 8}
    assert len(list(folder.glob("fold-0.*"))) == 1


@pytest.mark.parametrize("state", ["sound", "missing"])
def test_a_folder_of_another_run_is_refused_and_left_alone(folder, state):
    if state == "missing":
        (folder / STATE).unlink()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InvalidInputError, match=r"holds another run .*pass a new folder, or delete this one"):
        RunState(folder, "key two")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_another_format_and_a_file_for_a_folder_are_refused(folder, tmp_path):
    state = json.loads((folder / STATE).read_text())
    (folder / STATE).write_text(json.dumps(state | {"format": 99}))
    with pytest.raises(InvalidInputError, match=r"expected format 1, .* has 99"):
        RunState(folder, "key one")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="is a file"):
        RunState(tmp_path / "file", "key one")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\xff" * 20,
        lambda data: b"[]",
        lambda data: data.replace(b"fold-0.", b"../../fold-0."),
        lambda data: data.replace(b'"units"', b'"unit"'),
    ],
)
def test_a_damaged_state_is_told_and_rebuilt_from_the_units(folder, damage):
    path = folder / STATE
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(RunStateWarning, match=r"state\.json"):
        run = RunState(folder, "key one")
    assert_kept(run)
    assert run.load("fold-1") is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_kept(RunState(folder, "key one"))


def test_a_lost_state_is_rebuilt_from_the_units(folder):
    (folder / STATE).unlink()
    assert_kept(RunState(folder, "key one"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_unit_is_told_and_dropped_and_the_others_stand(folder, damage):
    path = unit_file(folder, "fold-1")
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[-1] ^= 1
        path.write_bytes(data[:-9] if damage == "cut" else data)
    run = RunState(folder, "key one")
    with pytest.warns(RunStateWarning, match="unit fold-1 computed again"):
        assert run.load("fold-1") is None
    assert_kept(run)
    assert RunState(folder, "key one").load("fold-1") is None


def test_what_a_killed_write_left_behind_is_cleared(folder):
    (folder / ".tmp-123-0123456789abcdef").write_bytes(b"half")
    assert_kept(RunState(folder, "key one"))
    assert not list(folder.glob(".tmp-*"))


def test_a_write_that_fails_leaves_the_old_unit(folder, monkeypatch):
    run = RunState(folder, "key one")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.save("fold-0", {"weights": np.zeros(1)}, {"epochs": 8})
    monkeypatch.undo()
    assert_kept(RunState(folder, "key one"))
    assert not list(folder.glob(".tmp-*"))


def test_a_units_name_is_no_path(folder):
    with pytest.raises(InvalidInputError, match="unit: expected letters"):
        RunState(folder, "key one").save("../fold", {}, {})


def test_what_is_not_of_a_killed_write_stays(folder):
    own = folder / ".tmp-notes"
    own.write_text("mine")
    assert_kept(RunState(folder, "key one"))
    assert own.read_text() == "mine"
