"""Killed at any step, `ipr init` and `ipr add-model --plan` leave no bundle behind that nobody certified: the next run removes what was
on the way, and goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.adding_numbers import (
    MODELS,
    add_model_arguments,
    init_arguments,
    plan,
    run_add_model,
    run_init,
    write_prompts,
    write_work,
)
from tests.support.killed_at import ONE_ESTIMATOR, killed_at
from tests.support.paid_server import PaidServer
from tests.support.places import ROOT
from tests.support.skips import COLLECT, EVAL, GRADE, TRAIN

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)
pytest.importorskip("regex", reason=GRADE)
pytest.importorskip("sklearn", reason=EVAL)
pytest.importorskip("threadpoolctl", reason=TRAIN)

from ipr_engine._files import temporary_folder
from ipr_engine.bundle import Bundle
from ipr_engine.training import train

ROUTER, NEW, WRITE = (
    "ipr_engine.onboarding.first_router",
    "ipr_engine.onboarding.new_candidate",
    "ipr_engine.bundle.write",
)


@pytest.fixture(scope="module")
def paid(tmp_path_factory):
    with PaidServer(tmp_path_factory.mktemp("paid") / "taken") as running:
        yield running


def bundles(root: Path) -> set[str]:
    """Return the names of the folders in a root, those of what is on the way too."""
    return {one.name for one in root.iterdir() if one.is_dir()}


@pytest.mark.slow
def test_what_a_killed_init_left_is_gone_after_the_next_one(tmp_path, paid, monkeypatch):
    write_prompts(tmp_path, 120)
    (tmp_path / "models.yaml").write_text(MODELS.format(base_url=paid.base_url))
    given, root = init_arguments(tmp_path, "--yes"), tmp_path / "router" / "bundles"
    steps = [
        (f"{WRITE}:_move_to", 1),  # the fitted bundle is about to get its name
        (f"{ROUTER}:calibrate", 1),
        (f"{WRITE}:_move_to", 2),  # the certified one
        (f"{WRITE}:set_current", 1),
    ]
    for place, which in steps:
        killed_at(place, which, given)
        assert not (root / "CURRENT").exists()
        assert [name for name in bundles(root) if name.startswith(".tmp-")]
        calls = paid.calls()  # all of the first run
    for step in ("_figures", "keep"):
        killed_at(f"{ROUTER}:{step}", 1, given)
        assert Bundle.load(root).calibrations
    monkeypatch.setattr(train, "CLOSED_FORM", ONE_ESTIMATOR)
    assert run_init(tmp_path, "--yes") == 0
    made = Bundle.load(root)
    assert bundles(root) == {made.hash}
    assert made.calibrations
    assert (tmp_path / "router" / "router.json").exists()
    assert paid.calls() == calls


@pytest.mark.slow
def test_what_a_killed_add_model_left_is_gone_after_the_next_one(tmp_path, paid):
    work = write_work(tmp_path)
    root, file = work / "root", plan(work, paid.base_url)
    counts = ("--choose", "40", "--certify", "30", "--yes")
    given, old = add_model_arguments(work, file, *counts), Bundle.load(root)
    for place, which in (
        (f"{WRITE}:_move_to", 1),
        (f"{NEW}:calibrate", 1),
        (f"{WRITE}:_move_to", 2),
        (f"{WRITE}:set_current", 1),
    ):
        killed_at(place, which, given)
        assert Bundle.load(root).hash == old.hash
        assert [name for name in bundles(root) if name.startswith(".tmp-")]
    calls = paid.calls()
    assert run_add_model(work, file, *counts) == 0
    made = Bundle.load(root)
    assert bundles(root) == {old.hash, made.hash}
    assert made.names == (*old.names, "new")
    assert paid.calls() == calls


def test_a_folder_whose_process_was_killed_is_removed_by_the_next_one(tmp_path):
    holding = "import os, pathlib, sys; from ipr_engine._files import temporary_folder\n"
    holding += (
        "with temporary_folder(pathlib.Path(sys.argv[1])) as own: (own / 'file').touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", holding, str(tmp_path)], cwd=ROOT, check=False)
    (left,) = bundles(tmp_path)
    assert (tmp_path / left / "file").exists()
    with temporary_folder(tmp_path) as own, temporary_folder(tmp_path) as other:
        assert bundles(tmp_path) == {own.name, other.name}
    assert not bundles(tmp_path)


def test_what_is_on_the_way_elsewhere_is_not_removed(tmp_path, paid):
    """Two commands may write bundles of one root at once."""
    work = write_work(tmp_path)
    file = plan(work, paid.base_url, name="beside")
    with temporary_folder(work / "root") as other:
        (other / "bundle").write_text("on the way")
        assert run_add_model(work, file, "--choose", "40", "--certify", "0", "--yes") == 0
        assert (other / "bundle").read_text() == "on the way"
    assert not [name for name in bundles(work / "root") if name.startswith(".tmp-")]
