"""Raw scores become qualities: what is told is of labels not seen, constant graders are refused, files give the same map."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.grade import Grade
from ipr_engine.grading.grader_calibration import calibrate_grader, read_grader_calibration
from ipr_engine.grading.quality_map import QualityMap, fit_map, shifted
from tests.support import skips
from tests.support.seeds import seeded

pytest.importorskip("sklearn", reason=skips.EVAL)

MODELS = ("a", "b", "c")


def labelled(questions: int, *, bias: float = 0.0, noise: float = 0.05, seed: object = 0):
    """Rows of a grader that sees quality through a curve; it likes model a by `bias` more than it should."""
    rng = seeded("grader", questions, seed)
    quality = np.clip(rng.normal([0.3, 0.5, 0.7], 0.25, (questions, 3)), 0, 1)
    raw = 4 * quality**2 - 1 + rng.normal(0, noise, quality.shape)
    raw[:, 0] += bias
    groups = [f"q{i}" for i in range(questions) for _ in MODELS]
    return raw.ravel(), quality.ravel(), groups, list(MODELS) * questions


def calibrated(questions: int, method="auto", **options):
    raw, labels, groups, models = labelled(questions, **options)
    return calibrate_grader(raw, labels, groups=groups, models=models, method=method, grader="g")


@pytest.mark.parametrize("method", ["isotonic", "auto"])
def test_qualities_agree_with_labels_that_no_fit_has_seen(method):
    made = calibrated(100, method)
    raw, labels, _, models = labelled(500, seed="others")
    assert np.abs(made.map(raw, models) - labels).mean() < 0.05
    assert made.report.ece < 0.03
    assert made.report.brier < 0.2 * made.report.brier_of_mean


def test_what_is_told_is_of_rows_that_were_left_out():
    """A label that noise alone decides: a map that had seen its rows would look better than the mean of the labels."""
    rng = seeded("left out")
    raw, _, groups, models = labelled(60)
    labels = np.clip(0.5 + 0.2 * (raw - raw.mean()) + rng.normal(0, 0.3, len(raw)), 0, 1)
    report = calibrate_grader(raw, labels, groups=groups, models=models, method="isotonic").report
    seen = fit_map(raw, labels, "isotonic")(raw, models)
    assert report.brier > np.square(seen - labels).mean()


def test_rows_of_one_question_are_never_on_both_sides():
    groups, models = labelled(40)[2:]
    lucky = np.array(
        [hash_of(group) for group in groups]
    )  # tells the question, and so the label of its other rows, alone
    by_question = np.repeat(seeded("luck").random(40), 3)
    with pytest.raises(InvalidInputError, match="the grader says nothing"):
        calibrate_grader(lucky, by_question, groups=groups, models=models)


def hash_of(text: str) -> float:
    return float(seeded(text).random())


def test_a_grader_that_likes_one_model_is_put_right():
    fair, biased = calibrated(200), calibrated(200, bias=0.6)
    assert biased.map.shifts["a"] < 0
    off = {model.name: model.off for model in biased.report.models}
    assert abs(off["a"]) < 0.03
    raw, _, _, models = labelled(200, bias=0.6)
    shared = QualityMap(
        method=biased.map.method, points=biased.map.points, slope=biased.map.slope, offset=biased.map.offset, shifts={}
    )
    assert shared(raw, models).reshape(-1, 3)[:, 0].mean() > biased.map(raw, models).reshape(-1, 3)[:, 0].mean() + 0.05
    assert fair.report.pairs_kept == fair.report.pairs_apart == 3


@pytest.mark.parametrize("raw", [np.zeros(300), seeded("noise").random(300)], ids=["one value", "noise"])
def test_a_grader_that_says_nothing_is_refused(raw):
    _, labels, groups, models = labelled(100)
    with pytest.raises(
        InvalidInputError, match=r"raw: the grader says nothing of 300 labels of 100 questions: .* constant"
    ):
        calibrate_grader(raw, labels, groups=groups, models=models)


def test_a_grader_that_turns_quality_around_is_refused():
    raw, labels, groups, models = labelled(100)
    with pytest.raises(InvalidInputError, match="the grader says nothing"):
        calibrate_grader(-raw, labels, groups=groups, models=models)


def test_few_labels_say_how_many_are_needed():
    with pytest.raises(InvalidInputError, match="expected those of 20 questions or more, got 19"):
        calibrated(19)
    wide, narrow = calibrated(100, noise=1.5).report.questions_needed, calibrated(100).report.questions_needed
    assert wide > narrow > 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda raw, labels, groups, models: (raw[1:], labels, groups, models), "expected equal rows"),
        (lambda raw, labels, groups, models: (raw * np.nan, labels, groups, models), "raw: expected finite"),
        (lambda raw, labels, groups, models: (raw, labels + 1, groups, models), r"labels: expected values in \[0, 1\]"),
    ],
)
def test_wrong_rows_are_told(change, told):
    raw, labels, groups, models = change(*labelled(30))
    with pytest.raises(InvalidInputError, match=told):
        calibrate_grader(raw, labels, groups=groups, models=models)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_map_rises_and_stays_in_the_unit_interval(method):
    raw, labels, _, models = labelled(50, bias=0.5)
    made = shifted(fit_map(raw, labels, method), raw, labels, models, 1.0)
    for model in (*MODELS, "never seen"):
        quality = made(np.linspace(-1e6, 1e6, 2001), [model] * 2001)
        assert (np.diff(quality) >= 0).all()
        assert ((quality >= 0) & (quality <= 1)).all()


def test_the_map_is_that_of_scikit_learn():
    from sklearn.isotonic import IsotonicRegression

    raw, labels, _, models = labelled(50)
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(raw, labels)
    asked = np.linspace(-3, 5, 999)
    np.testing.assert_allclose(
        fit_map(raw, labels, "isotonic")(asked, models[:1] * 999), theirs.predict(asked), atol=1e-12
    )


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_a_file_gives_the_same_map_and_report(tmp_path, method):
    made = calibrated(40, method, bias=0.5)
    made.write(tmp_path / "c.json")
    assert read_grader_calibration(tmp_path / "c.json") == made


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("method", "magic", "map.method: expected one of isotonic, platt"),
        ("points", [[0, 0.5], [1, 0.4]], "map.points: expected rising pairs"),
        ("points", [[0, 1.5]], "map.points: expected rising pairs"),
        ("points", [[0]], "map.points: expected a list of pairs"),
        ("points", [], "map.points: expected rising pairs"),
        ("shifts", {"a": "b"}, "map.shifts.a: expected a number"),
        ("more", 1, "map.more: is no key here"),
    ],
)
def test_a_damaged_file_is_told_by_its_key(tmp_path, key, value, told):
    calibrated(40, "isotonic").write(tmp_path / "c.json")
    document = json.loads((tmp_path / "c.json").read_text())
    document["map"][key] = value
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match=f"c.json: {told}"):
        read_grader_calibration(tmp_path / "c.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"map": 3}'])
def test_a_file_of_another_kind_is_told(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidInputError, match=r"c\.json: "):
        read_grader_calibration(tmp_path / "c.json")


def test_grades_get_qualities_and_keep_what_was_raw():
    made = calibrated(100)
    high, none, verdict = made.grades([Grade(None, raw=3.0), Grade(None, reason="late"), Grade(1.0)], ["a", "a", "b"])
    assert high.score > 0.9
    assert high.raw == 3.0
    assert none == Grade(None, reason="late")
    assert verdict.raw == 1.0
