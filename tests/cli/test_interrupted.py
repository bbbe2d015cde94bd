"""Whoever interrupts a command that keeps what is done is told that it goes on; of another nothing is said."""

from __future__ import annotations

import pytest

from ipr_engine.cli.main import main
from tests.support.skips import COLLECT, TRAIN

GOES_ON = "; the same command goes on where it stopped"
TRAINS = ["train", "--outcomes", "o", "--candidates", "c.json", "--out", "bundles"]
INIT = ["init", "--models", "m.yaml", "--out", "router"]
CASES = {
    "collect": ("ipr_engine.collection.collection_plan.read_plan", ["collect", "plan.yaml"], GOES_ON),
    "init": ("ipr_engine.onboarding.first_plan.first_plan", [*INIT, "--prompts", "p", "--budget", "1"], GOES_ON),
    "init offline": ("ipr_engine.onboarding.public_models.public_models", [*INIT, "--offline"], ""),
    "add-model by a plan": (
        "ipr_engine.bundle.checks.require_day",
        ["add-model", "--bundle", "bundles", "--plan", "plan.yaml", "--outcomes", "o"],
        GOES_ON,
    ),
    "data embed": (
        "ipr_engine.encoders.registry.open_encoder",
        ["data", "embed", "o", "--encoder", "e", "--cache", "c"],
        GOES_ON,
    ),
    "train": ("ipr_engine.training.train.train", TRAINS, ""),
    "train in a run folder": (
        "ipr_engine.training.train.train",
        [*TRAINS, "--estimator", "paper", "--run-folder", "run"],
        GOES_ON,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupt_says_whether_the_command_goes_on(case, tmp_path, monkeypatch, capsys):
    for module, reason in (("openai", COLLECT), ("aiolimiter", COLLECT), ("threadpoolctl", TRAIN)):
        pytest.importorskip(module, reason=reason)
    place, given, told = CASES[case]

    def interrupted(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, interrupted)
    assert main(given) == 130
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"ipr {given[0]}: interrupted{told}\n")
