"""ipr calibrate: outcomes in, a bundle with a map out, and `ipr route` and `ipr explain` that read it."""

import json

import pytest

from ipr_engine import Engine
from ipr_engine.cli import main
from tests.support import skips
from tests.support.calibration_data import make_engine, make_outcomes, make_source


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """(bundle root, outcomes folder)"""
    folder = tmp_path_factory.mktemp("cli")
    plain = make_engine(folder / "plain")
    train, calibration = make_outcomes(plain, "train", 300), make_outcomes(plain, "calibration", 400)
    make_engine(folder, fitted=train)
    return str(folder / "bundles"), str(make_source(folder / "source", train, calibration))


def calibrate(scene, *more):
    return main(["calibrate", "--bundle", scene[0], "--outcomes", scene[1], "--split", "calibration", *more])


def test_calibrate_prints_the_steps_and_writes_a_bundle_that_routes(scene, tmp_path, capsys):
    root = str(tmp_path / "out")
    assert calibrate(scene, "--out", root) == 0
    captured = capsys.readouterr()
    assert "best alpha/large" in captured.out
    assert "tau 0" in captured.out
    assert "share 1" in captured.out
    assert main(["route", "prove why", "--bundle", root, "--preset", "cost", "--json"]) == 0
    decision = json.loads(capsys.readouterr().out)["decision"]
    assert (decision["rule"], decision["calibration"]) == ("calibrated", "calibrated")
    assert main(["info", "--bundle", root]) == 0
    assert (
        "calibration map of 4 candidates, risk 0.1, on 400 prompts of source, split calibration"
        in capsys.readouterr().out
    )
    assert main(["explain", "prove why", "--bundle", root, "--tau", "0.3", "--rule", "calibrated"]) == 0
    assert "holds on traffic like source, split calibration" in capsys.readouterr().out


def test_without_out_nothing_is_written_and_json_holds_the_map(scene, capsys):
    before = Engine.load(scene[0]).bundle.hash
    assert calibrate(scene, "--json", "--risk", "0.2", "--simultaneous") == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts["bundle"] is None
    assert (facts["map"]["risk"], facts["map"]["simultaneous"]) == (0.2, True)
    assert "nothing written" in captured.err
    assert Engine.load(scene[0]).bundle.hash == before


def test_a_second_set_gets_a_second_map(scene, tmp_path, capsys):
    root = str(tmp_path / "out")
    assert calibrate(scene, "--out", root) == 0
    pair = ["--allow", "alpha/large", "--allow", "delta/tiny"]
    assert (
        main(["calibrate", "--bundle", root, "--outcomes", scene[1], "--split", "calibration", *pair, "--out", root])
        == 0
    )
    engine = Engine.load(root)
    assert [len(made.candidates) for made in engine.bundle.calibrations] == [4, 2]
    policy = engine.policy(tau=0.3, rule="calibrated", allowed=["alpha/large", "delta/tiny"])
    assert policy.calibration.status == "calibrated"


def test_a_plot_is_drawn(scene, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    plot = tmp_path / "map.png"
    assert calibrate(scene, "--plot", str(plot)) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--split", "train"],
            "300 of 300 calibration prompts (or their questions) are among those the heads were fitted on",
        ),
        (["--path-split", "calibration"], "among those the path is fitted on"),
        (["--split", "nowhere"], "nowhere"),
        (["--risk", "2"], "risk: expected a number above 0"),
        (["--map", "nobody=x"], "--map: expected NAME=SOURCE with a candidate's name"),
        (["--map", "beta/mid=absent"], "no outcomes of 'beta/mid'"),
        (["--plot", "map.xyz"], "--plot: expected a file to write that ends in .png, got map.xyz"),
        (["--family", "beta"], "at least two to choose between"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(scene, tmp_path, capsys, more, message):
    assert calibrate(scene, "--out", str(tmp_path / "out"), *more) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_route_refuses_a_rule_that_the_bundle_cannot_keep(scene, capsys):
    assert main(["route", "x", "--bundle", scene[0], "--rule", "calibrated"]) == 1
    assert "needs a map" in capsys.readouterr().err
    assert main(["route", "x", "--bundle", scene[0], "--tau", "0.1", "--preset", "cost"]) == 1
    assert "got tau, preset" in capsys.readouterr().err
