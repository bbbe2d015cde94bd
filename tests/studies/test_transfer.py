"""The study of transfer on generated outcomes: what each arm is fitted on, its page, the default bundle's section."""

import dataclasses
import json

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.fitted_heads import predict
from studies import default_sources, transfer
from studies.cases import ZEROEVAL
from studies.mixing import ARMS, LEVELLED, OTHER, OWN, POOLED, Judged, fit_arm, judged
from studies.shared_candidates import CASCADE9, MMLU_PRO, PAIRS
from studies.views import Views
from tests.support import skips
from tests.support.outcome_data import make_outcomes
from tests.support.training_data import make_world, write_source

PROMPTS = ["prove it", "what is the code", "explain how to write and why"]
GATHER = default_sources.gather


def make_rows(*seed, rows=160):
    world = make_world(*seed, rows=rows, models=3)
    return Judged(world.x, world.quality, world.tokens, tuple(world.keys))


def test_an_arm_depends_on_the_rows_it_names_alone():
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    own, other, another = make_rows("own"), make_rows("other"), make_rows("another", rows=90)

    def skip(arm, a, b):
        return fit_arm(arm, a, b, "advantage_shared").tensors["skip"]

    np.testing.assert_array_equal(skip(OWN, own, other), skip(OWN, own, another))
    np.testing.assert_array_equal(skip(OTHER, own, other), skip(OTHER, another, other))
    assert not np.array_equal(skip(POOLED, own, other), skip(POOLED, own, another))
    with pytest.raises(InvalidInputError, match="arm: expected one of"):
        fit_arm("all", own, other, "caps")


def test_an_intercept_takes_up_the_other_sources_level_and_is_dropped():
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    own = make_rows("level", rows=400)
    other = make_rows("level of the other", rows=400)
    other = dataclasses.replace(other, quality=np.where(np.arange(400)[:, None] % 4 == 0, other.quality, 0.0))
    level = own.quality.mean()
    means = {
        arm: predict(fit_arm(arm, own, other, "advantage_shared").tensors, own.x)[0].mean()
        for arm in (LEVELLED, POOLED)
    }
    assert abs(means[LEVELLED] - level) < 0.05
    assert means[POOLED] < level - 0.1


def test_columns_are_matched_by_name_and_unknown_candidates_stay_open():
    data = make_outcomes("columns", sparse=0.5)
    rows = judged(data, ("x", "y"), {"y": "model c"}, Views())
    there = ~np.isnan(data.quality[:, 2])
    assert len(rows) == there.sum() == len(rows.x)
    assert np.isnan(rows.quality[:, 0]).all()
    np.testing.assert_array_equal(rows.quality[:, 1], data.quality[there, 2])


def test_every_pair_is_its_own_inverse():
    for (target, other), names in PAIRS.items():
        assert PAIRS[other, target] == {there: here for here, there in names.items()}
    assert set(CASCADE9) | set(MMLU_PRO) <= set(ZEROEVAL)


def write_sources(folder):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    for name, models in (("zeroeval", ZEROEVAL), ("cascade9", CASCADE9.values()), ("mmlu_pro", MMLU_PRO.values())):
        write_source(folder / name, list(models), PROMPTS)


def run(study, folder, *more):
    out = folder / "out"
    assert main(["study", study, "--outcomes", str(folder), "--out", str(out), "--draws", "20", *more]) == 0
    text = (out / f"{study}.md").read_text()
    assert not any(prompt in text for prompt in PROMPTS)
    assert str(folder) not in text
    assert (out / f"{study}.png").stat().st_size > 10_000
    return json.loads((out / f"{study}.json").read_text())


def test_a_page_has_every_arm_at_every_size(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SEEDS", 1)
    monkeypatch.setattr(transfer, "SMALL", (30, 300))
    write_sources(tmp_path)
    figures = run("transfer", tmp_path, "--source", "cascade9")
    assert set(figures) == {"command", "versions", "commit", "cascade9 from zeroeval"}
    assert {size: set(arms) for size, arms in figures["cascade9 from zeroeval"].items()} == {
        "30": set(ARMS),
        "80": set(ARMS),
    }


def test_the_default_bundles_sources_are_judged_on_training_rows_that_no_heads_saw(tmp_path, monkeypatch):
    monkeypatch.setattr(default_sources, "SEEDS", 1)
    monkeypatch.setattr(default_sources, "ESTIMATORS", ("advantage_shared",))
    write_sources(tmp_path)
    seen = []

    def gather(study):
        seen.append(GATHER(study))
        return seen[0]

    monkeypatch.setattr(default_sources, "gather", gather)
    figures = run("default_sources", tmp_path)["advantage_shared"]
    assert set(figures) == {"zeroeval", "mmlu_pro", "cascade9"}
    assert all(set(arms) == set(default_sources.ARMS) for arms in figures.values())
    assert [len(seen[0].own), len(seen[0].more), len(seen[0].back), len(seen[0].outside)] == [80, 64, 16, 80]
    assert not {row.tobytes() for row in seen[0].back} & {row.tobytes() for row in seen[0].more.x}
