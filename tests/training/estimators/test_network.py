"""The torch estimators: what is exported is what was fitted, gaps have no influence, and the same bytes come out."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tests.support.decide_requests import Request, make_policy
from tests.support.seeds import seeded
from tests.support.training_data import make_bent, make_world

torch = pytest.importorskip("torch", reason="needs extra [train]: torch, for networks")
pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

from ipr_engine.decide import reference  # noqa: E402
from ipr_engine.decide.contract import Heads  # noqa: E402
from ipr_engine.errors import InvalidInputError  # noqa: E402
from ipr_engine.training.estimators.checkpoint import STATE, RunState, RunStateWarning  # noqa: E402
from ipr_engine.training.estimators.network import NetworkConfig, fit_network  # noqa: E402
from ipr_engine.training.estimators.network_fit import Part, Stop, fit  # noqa: E402
from ipr_engine.training.estimators.network_module import export  # noqa: E402
from ipr_engine.training.estimators.ridge import fit_ridge  # noqa: E402
from ipr_engine.training.estimators.scores import FoldedRows  # noqa: E402
from tests.support.network_fits import FORMS, fit_small  # noqa: E402
from tests.support.places import ROOT  # noqa: E402


def as_bytes(scores):
    parts = {name: tensor.tobytes() for name, tensor in scores.tensors.items()}
    return parts | {"out_of_fold": scores.out_of_fold.tobytes(), "settings": repr(scores.settings).encode()}


def logits(tensors, activation, x):
    """The reference's float64 logits of float64 tensors."""
    absent = {field.name: None for field in dataclasses.fields(Heads)}  # not Heads itself, which takes float32 only
    return reference.predict_logit(SimpleNamespace(**absent | tensors | {"activation": activation}), x)


@pytest.fixture(params=FORMS)
def config(request):
    return FORMS[request.param]


@pytest.mark.parametrize("linear_only", [0, 2])
def test_exported_tensors_score_as_the_fitted_module(config, linear_only):
    data = make_bent("export", rows=200, missing=0.2)
    x = data.x * 3 + 5  # neither centred nor scaled
    part = Part(x, data.quality, linear_only)
    fitted = fit("u", part, config, Stop(epochs=5), seed=0, run=None, advance=lambda rows: None)
    expected = fitted.score(x, config.activation)
    got = logits(export(fitted.parts, fitted.standard), config.activation, x)
    # sums of some hundred terms of size about 10, in another order
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    assert np.ptp(expected, axis=0).min() > 0.01


def test_trailing_columns_only_shift_scores(config):
    data = make_bent("linear only", rows=300)
    source = np.arange(300) % 2
    x = np.concatenate([data.x, 10.0 * source[:, None]], axis=1)
    quality = data.quality * np.where(source, 0.3, 1.0)[:, None]
    scores = fit_network(FoldedRows(x, quality, data.folds, linear_only=1), config, seed=0)
    assert all((scores.tensors[name][..., -1] == 0).all() for name in ("trunk", "down") if name in scores.tensors)
    there, here = x.copy(), x.copy()
    there[:, -1], here[:, -1] = 10.0, 0.0
    moved = logits(scores.tensors, config.activation, there) - logits(scores.tensors, config.activation, here)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:1], moved.shape), atol=1e-11)
    if set(config.losses) != {"pairwise"}:
        assert (moved < 0).all()


def test_tensors_have_the_names_and_shapes_of_the_packed_form(config):
    scores = fit_small(make_bent("shapes", rows=120), config)
    shapes = {"trunk": (12, 8), "identity": (4, 12), "out": (4, 12), "bias": (4,)}
    if config.form == "adapters" and config.rank:
        shapes |= {"up": (4, 12, config.rank), "down": (4, config.rank, 8)}
    if config.form == "adapters" and config.skip:
        shapes["skip"] = (4, 8)
    assert {name: tensor.shape for name, tensor in scores.tensors.items()} == shapes
    assert {tensor.dtype for tensor in scores.tensors.values()} == {np.dtype(np.float64)}
    assert np.isfinite(scores.out_of_fold).all()
    if config.form == "paper":
        assert (scores.tensors["out"] == scores.tensors["out"][:1]).all()


def test_the_op_chooses_as_the_reference_outside_the_gap(config, rng):
    data = make_bent("op", rows=150)
    scores = fit_small(data, config)
    tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in scores.tensors.items()}
    request = Request(
        heads=Heads(**tensors, activation=scores.activation),
        policy=make_policy(rng, 4),
        x=data.x.astype(np.float32),
        billed_tokens=np.full(150, 100, np.float32),
        tokens_out=rng.uniform(1, 900, (150, 4)).astype(np.float32),
    )
    result, wanted = request.run(), request.reference()
    # the float64 tensors before they were rounded: a logit of size up to 10 is off by some 1e-6
    exact = 1 / (1 + np.exp(-logits(scores.tensors, scores.activation, data.x)))
    np.testing.assert_allclose(result.quality, exact, atol=1e-5)
    clear = np.array([row.gap for row in wanted.rows]) > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(result.index[clear], np.array([row.index for row in wanted.rows])[clear])


def test_what_stands_in_an_unjudged_cell_changes_no_byte(config):
    data = make_bent("nan", rows=200, missing=0.3)
    payload = data.quality.copy()
    payload[np.isnan(payload)] = -np.nan
    other = SimpleNamespace(x=data.x, quality=payload, folds=data.folds)
    assert as_bytes(fit_small(data, config)) == as_bytes(fit_small(other, config))


def test_rows_that_nobody_judged_are_scored_and_teach_nothing(config):
    data = make_bent("unjudged", rows=160)
    more = seeded("unjudged rows").standard_normal((40, 8)) * 9
    wide = SimpleNamespace(
        x=np.concatenate([data.x, more]),
        quality=np.concatenate([data.quality, np.full((40, 4), np.nan)]),
        folds=np.concatenate([data.folds, np.arange(40) % 4]),
    )
    alone, together = fit_small(data, config), fit_small(wide, config)
    for name, tensor in alone.tensors.items():
        np.testing.assert_array_equal(together.tensors[name], tensor)
    np.testing.assert_allclose(together.out_of_fold[:160], alone.out_of_fold, atol=1e-12)
    assert np.isfinite(together.out_of_fold[160:]).all()


@pytest.mark.parametrize(
    ("loss", "missing"), [("squared", 0.4), ("cross_entropy", 0.4), ("pairwise", 0.4), ("cross_entropy", 0.0)]
)
def test_structure_that_no_linear_score_has_is_learned(loss, missing):
    data = make_bent("learn", loss, rows=800, missing=missing)
    config = NetworkConfig(hidden=16, rank=0, lr=0.02, weight_decay=0.1, epochs=20, batch=64, loss=loss)
    scores = fit_small(data, config).out_of_fold
    complete = np.where(np.isnan(data.quality), np.nanmean(data.quality, axis=0), data.quality)
    linear = fit_ridge(data.x, complete, data.folds).out_of_fold

    def right(predicted):
        """Share of rows where candidates 0 and 1 are put in the right order."""
        differ = ~(np.isnan(data.quality[:, :2]).any(axis=1) | (data.quality[:, 0] == data.quality[:, 1]))
        first = data.quality[differ, 0] > data.quality[differ, 1]
        return ((predicted[differ, 0] > predicted[differ, 1]) == first).mean()

    assert right(scores) > 0.8
    assert right(linear) < 0.65


def test_the_papers_form_learns_what_candidates_share():
    world = make_world("paper learns", rows=600)
    config = NetworkConfig(form="paper", hidden=32, lr=0.02, weight_decay=0.1, epochs=12, batch=64)
    scores = fit_network(FoldedRows(world.x, world.quality, np.arange(600) % 4), config, seed=0)
    truth = np.log(world.chance / (1 - world.chance))
    assert np.corrcoef(scores.out_of_fold.ravel(), truth.ravel())[0, 1] > 0.8


def test_same_input_same_bytes_and_no_global_state_is_left_changed(config):
    data = make_bent("bytes", rows=150, missing=0.1)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(3)  # another number than a fit's
    one = as_bytes(fit_small(data, config))
    torch.rand(3)
    assert as_bytes(fit_small(data, config)) == one
    assert as_bytes(fit_small(data, config, seed=4)) != one
    assert torch.get_num_threads() == 3
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


def test_no_score_comes_from_a_fit_that_saw_its_row():
    data = make_bent("held out", rows=120)
    scores = fit_small(data, FORMS["adapters"])
    held_out = data.folds == 2
    quality = np.where(held_out[:, None], 1 - data.quality, data.quality)
    others = fit_small(SimpleNamespace(x=data.x, quality=quality, folds=data.folds), FORMS["adapters"])
    np.testing.assert_array_equal(scores.out_of_fold[held_out], others.out_of_fold[held_out])
    assert (scores.out_of_fold[~held_out] != others.out_of_fold[~held_out]).any()


@pytest.mark.parametrize("where", ["first", "all"])
def test_constant_columns_decide_nothing(config, where):
    data = make_bent("constant", rows=120)
    x = data.x.copy()
    x[:, 0 if where == "first" else slice(None)] = 7.5
    scores = fit_network(FoldedRows(x, data.quality, data.folds), config, seed=0)
    constant = np.ptp(x, axis=0) == 0
    assert all((scores.tensors[n][..., constant] == 0).all() for n in ("trunk", "down", "skip") if n in scores.tensors)
    assert np.isfinite(scores.out_of_fold).all()


def test_one_candidate_and_qualities_all_alike_are_fitted(config):
    data = make_bent("one", rows=120, models=1)
    assert np.isfinite(fit_small(data, config).out_of_fold).all()
    alike = SimpleNamespace(x=data.x, quality=np.ones((120, 1)), folds=data.folds)
    assert np.isfinite(fit_small(alike, config).out_of_fold).all()


def test_a_candidate_judged_in_one_fold_only_is_scored_everywhere(config):
    data = make_bent("one fold", rows=160)
    quality = data.quality.copy()
    quality[data.folds != 1, 3] = np.nan
    sparse = SimpleNamespace(x=data.x, quality=quality, folds=data.folds)
    assert np.isfinite(fit_small(sparse, config).out_of_fold).all()


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("after", [0, 3])
def test_an_interrupted_run_goes_on_to_the_same_bytes(config, tmp_path, after):
    data = make_bent("resume", rows=150, missing=0.1)
    said = []

    def interrupt(message):
        said.append(message)
        if len(said) > after:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit_small(data, config, run=RunState(tmp_path, "key"), progress=interrupt)
    resumed = fit_small(data, config, run=RunState(tmp_path, "key"))
    assert as_bytes(resumed) == as_bytes(fit_small(data, config))


def test_a_fit_stopped_between_epochs_goes_on_from_its_checkpoint(config, tmp_path):
    data = make_bent("epochs", rows=150, missing=0.1)
    rows = np.arange(150) < 110
    told: list[int] = []

    def train(run, advance):
        part, stop = (
            Part(data.x[rows], data.quality[rows]),
            Stop(epochs=12, validation=(data.x[~rows], data.quality[~rows])),
        )
        return fit("unit", part, config, stop, seed=1, run=run, advance=advance)

    def interrupt(advanced):
        told.append(advanced)
        if len(told) == 7:  # two epochs after the checkpoint of the fifth
            raise Interrupted

    with pytest.raises(Interrupted):
        train(RunState(tmp_path, "key"), interrupt)
    assert RunState(tmp_path, "key").load("unit")[1]["epoch"] == 5
    resumed, whole = train(RunState(tmp_path, "key"), lambda rows: None), train(None, lambda rows: None)
    assert (resumed.epochs, resumed.loss) == (whole.epochs, whole.loss)
    for name, part in whole.parts.items():
        assert resumed.parts[name].numpy().tobytes() == part.numpy().tobytes()


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from ipr_engine.training.estimators.checkpoint import RunState
from tests.support.network_fits import FORMS, fit_small
from tests.support.training_data import make_bent
fit_small(make_bent("killed", rows=300), FORMS["adapters"], run=RunState({folder!r}, "key"))
"""


def test_a_killed_process_leaves_a_folder_that_goes_on_to_the_same_bytes(tmp_path):
    code = KILLED.format(tests=str(ROOT), folder=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        while not list((tmp_path / "run").glob("*stop-1*")) and process.poll() is None:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    data = make_bent("killed", rows=300)
    resumed = fit_small(data, FORMS["adapters"], run=RunState(tmp_path / "run", "key"))
    assert as_bytes(resumed) == as_bytes(fit_small(data, FORMS["adapters"]))


def test_a_finished_run_is_not_fitted_again(tmp_path, monkeypatch):
    data = make_bent("finished", rows=150)
    first = as_bytes(fit_small(data, FORMS["paper"], run=RunState(tmp_path, "key")))
    monkeypatch.setattr("ipr_engine.training.estimators.network_fit._Loop", None)  # no epoch can be run
    assert as_bytes(fit_small(data, FORMS["paper"], run=RunState(tmp_path, "key"))) == first


def test_another_fit_in_the_same_folder_takes_nothing_from_the_first(tmp_path):
    data = make_bent("shared", rows=150)
    for changes in ({}, {"seed": 4}):
        kept = fit_small(data, FORMS["adapters"], run=RunState(tmp_path, "key"), **changes)
        assert as_bytes(kept) == as_bytes(fit_small(data, FORMS["adapters"], **changes))


def test_damage_in_a_run_folder_is_told_and_computed_again(tmp_path):
    data = make_bent("damage", rows=150)
    whole = as_bytes(fit_small(data, FORMS["adapters"], run=RunState(tmp_path, "key")))
    (tmp_path / STATE).write_text("{")
    victim = next(tmp_path.glob("*fold-2*"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.warns(RunStateWarning):
        repaired = fit_small(data, FORMS["adapters"], run=RunState(tmp_path, "key"))
    assert as_bytes(repaired) == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "deep"}, "form: expected one of paper, adapters, got 'deep'"),
        ({"activation": "tanh"}, "activation: expected one of relu, silu, gelu"),
        ({"hidden": 0}, "hidden: expected an int >= 1, got 0"),
        ({"rank": 1.5}, "rank: expected an int >= 0, got 1.5"),
        ({"epochs": True}, "epochs: expected an int >= 1, got True"),
        ({"lr": 0}, "expected lr > 0 and dropout < 1, got 0"),
        ({"lr": float("nan")}, "lr: expected a finite number >= 0, got nan"),
        ({"dropout": 1.0}, "expected lr > 0 and dropout < 1"),
        ({"skip": "yes"}, "skip: expected True or False"),
        ({"loss": "hinge"}, "loss: expected one or a mix of squared, cross_entropy, pairwise, got 'hinge'"),
        ({"loss": {}}, "loss: expected one or a mix"),
        ({"loss": {"squared": -1.0}}, "loss: expected finite weights > 0"),
        ({"loss": 3}, "loss: expected one or a mix"),
        ({"link": "identity"}, "link: expected 'sigmoid' with cross_entropy"),
    ],
)
def test_a_config_that_cannot_be_is_named(options, message):
    with pytest.raises(InvalidInputError, match=message):
        NetworkConfig(**options)


def test_options_make_a_config_and_unknown_ones_are_named():
    assert NetworkConfig.of("paper", {"hidden": 8}) == NetworkConfig(form="paper", hidden=8, loss="squared")
    assert NetworkConfig.of("adapters", {"rank": 2}) == NetworkConfig(form="adapters", rank=2)
    with pytest.raises(InvalidInputError, match=r"options: expected some of hidden, .*got layers"):
        NetworkConfig.of("paper", {"layers": 3})


def broken(data, **changes):
    return {"x": data.x.copy(), "quality": data.quality.copy(), "folds": data.folds.copy()} | changes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(x=d["x"].tolist()), "x: expected a 2-d array of float64, got list"),
        (lambda d: d.update(folds=d["folds"] * 1.0), "folds: expected a 1-d array of int64, got float64"),
        (lambda d: d.update(x=d["x"][1:]), "expected equal rows"),
        (lambda d: d["x"].__setitem__((7, 0), np.inf), "x: expected finite values, got others in row 7"),
        (lambda d: d["quality"].__setitem__((9, 2), 1.5), r"quality: expected values in \[0, 1\].* 1.5 at row 9, cand"),
        (lambda d: d["quality"].__setitem__((slice(None), 1), np.nan), "candidate 1 has none"),
        (lambda d: d["quality"].__setitem__(d["folds"] == 3, np.nan), "fold 3 has none"),
        (lambda d: d.update(folds=d["folds"] % 2), "folds: expected at least 3 distinct folds"),
    ],
)
def test_unusable_rows_are_named(change, message):
    given = broken(make_bent("broken", rows=60))
    change(given)
    with pytest.raises(InvalidInputError, match=message):
        fit_network(FoldedRows(**given), FORMS["adapters"], seed=0)


def test_what_cannot_be_fitted_is_named():
    data = make_bent("cannot", rows=60)
    one = make_bent("cannot", rows=60, models=1)
    with pytest.raises(InvalidInputError, match="pairwise alone compares candidates"):
        fit_small(one, NetworkConfig(loss="pairwise"))
    with pytest.raises(InvalidInputError, match="seed: expected an int"):
        fit_small(data, FORMS["adapters"], seed=-1)
    with pytest.raises(InvalidInputError, match="linear_only: expected an int in"):
        fit_small(data, FORMS["adapters"], linear_only=8)
    with pytest.raises(InvalidInputError, match=r"the fit diverged in epoch .*a smaller lr than 1e"):
        fit_small(data, NetworkConfig(lr=1e30, loss="squared", link="identity"))
