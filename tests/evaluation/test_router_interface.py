"""Any router is judged on the same data: named by its place, given no outcome of the test, and refused where it goes by more than text."""

import ctypes
import gc
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._extras import need
from ipr_engine.data import load_outcomes
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.evaluation.evaluation_inputs import EvaluationOptions
from ipr_engine.evaluation.router_interface import FittingData, called, load_router
from ipr_engine.evaluation.router_names import LINES, OWN
from ipr_engine.evaluation.router_runs import SEEDS
from tests.support import routers, skips
from tests.support.bundles import NAMES, make_bundle
from tests.support.evaluation_data import evaluate_engine, make_outcomes
from tests.support.training_data import write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]
MODELS = list(NAMES[:3])


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("routers")


@pytest.fixture(scope="module")
def engine(work):
    return Engine.load(make_bundle(work / "bundle", models=3, dim=16))


@pytest.fixture(scope="module")
def source(work):
    routers.ASIDE["path"] = write_source(work / "made", MODELS, PROMPTS)
    return load_outcomes(routers.ASIDE["path"])


def judged(engine, source, **fits):
    options = {name: fits.pop(name) for name in ("validate_on_train", "draws") if name in fits}
    return evaluate_engine(engine, source, routers=fits, **{"draws": 20, **options})


def line(summary, name):
    return next(c for c in summary.figures["contenders"] if c["name"] == name)


def test_a_router_of_ten_lines_is_a_line_of_every_table(engine, source):
    found = line(judged(engine, source, length=routers.by_length), "length")
    assert (found["kind"], found["settings"], found["setting"]) == ("other router", 10, "fitted on 80 prompts")
    assert len(found["operating_points"]) == 4
    assert set(found["router_minus_this"]) >= {"router, worth", "router, minmax"}
    assert found["aiq"]["low"] < found["aiq"]["high"]


def test_its_choices_are_held_against_the_outcomes_of_their_own_prompts(engine, source):
    """The prompts come in another order; what is judged is in the order of the outcomes again."""
    summary = judged(engine, source, length=routers.by_length)
    rows, train = source.of_split("test"), source.of_split("train")
    limits = np.quantile([len(prompt) for prompt in train.prompts], np.linspace(1, 0, 10))
    best, cheapest = train.quality.mean(axis=0).argmax(), 2
    for point, limit in enumerate(limits):
        chosen = [best if len(prompt) > limit else cheapest for prompt in rows.prompts]
        realised = rows.quality[np.arange(len(rows)), chosen].mean()
        assert summary.curves["length"].quality[0, point] == pytest.approx(realised)


def test_positions_names_and_shares_of_one_say_the_same(engine, source):
    ways = {
        "positions": lambda prompts: [[len(prompt) % 3 for prompt in prompts]],
        "names": lambda prompts: [MODELS[len(prompt) % 3] for prompt in prompts],
        "shares": lambda prompts: np.eye(3)[[[len(prompt) % 3 for prompt in prompts]]],
    }
    summary = judged(engine, source, **{name: routers.returning(way) for name, way in ways.items()})
    areas = [line(summary, name)["area"] for name in ways]
    assert areas[0] == pytest.approx(areas[1])
    assert areas[0] == pytest.approx(areas[2])


@pytest.mark.parametrize("cheat", [routers.kept_rows, routers.kept_ids, routers.lottery, routers.top_of_the_batch])
def test_a_router_that_goes_by_the_place_or_company_of_a_prompt_is_refused(engine, source, cheat):
    with pytest.raises(
        InvalidInputError, match=r"--router cheat: \d+\.\d% of its choices changed where the same prompts"
    ):
        judged(engine, source, cheat=cheat)


def test_places_tell_nothing_where_the_check_is_left_out_for_chance(engine, source):
    """A cheat that says it chooses by chance is not compared; it still never learns which prompt stands where."""

    def cheat(train):
        route = routers.kept_rows(train)
        return lambda prompts, seed: route(prompts)

    summary = judged(engine, source, cheat=cheat)
    test = source.of_split("test").quality
    reached, oracle = summary.curves["cheat"].quality[0, 0], test.max(axis=1).mean()
    assert reached < test.mean(axis=0).max() + 0.03 < oracle
    assert f"by chance: mean of {SEEDS} seeds" in line(summary, "cheat")["setting"]


def test_a_table_of_texts_kept_aside_is_what_no_order_of_prompts_finds_out(engine, source):
    """docs/judging-routers.md says so; this is the proof that it is no more than the truth."""
    summary = judged(engine, source, cheat=routers.kept_texts)
    assert summary.curves["cheat"].quality[0, 0] == pytest.approx(source.of_split("test").quality.max(axis=1).mean())


def test_no_outcome_of_a_test_prompt_can_be_reached_from_what_a_router_is_given(engine, source):
    seen = []

    def fit(train):
        seen.append(train)
        return lambda prompts: [0] * len(prompts)

    judged(engine, source, spy=fit)
    train = seen[0]
    assert isinstance(train, FittingData)
    assert not hasattr(train, "prompt_ids")
    assert set(train.prompts) == set(source.of_split("train").prompts)
    test = source.of_split("test").quality
    # Every object that hangs on it, by attributes, cells of closures and bases of arrays; modules and classes are everybody's.
    reached, waiting = {}, [train]
    while waiting:
        item = waiting.pop()
        if id(item) in reached or isinstance(item, (type, type(re))) or item is engine:
            continue
        reached[id(item)] = item
        if callable(item) and hasattr(item, "__closure__"):
            waiting += [cell.cell_contents for cell in item.__closure__ or ()]
            continue
        waiting += gc.get_referents(item)
        waiting += [item.base] if isinstance(item, np.ndarray) and item.base is not None else []
    arrays = [item for item in reached.values() if isinstance(item, np.ndarray)]
    assert any(array.shape == train.quality.shape for array in arrays)
    for array in arrays:
        assert array.shape != source.quality.shape
        assert not (array.shape == test.shape and np.array_equal(array, test))
    with pytest.raises(ValueError, match="read-only"):
        train.quality[0] = 1


def test_training_prompts_that_ask_a_question_of_the_test_are_left_out(engine, work):
    folder = write_source(
        work / "twice", MODELS, ["a question that both splits ask in just these words"], rows_per_split=40
    )
    source = load_outcomes(folder)
    from dataclasses import replace

    key = "thesamelongquestionaskedofbothsplits"
    # Ten training prompts share a key with the test split, one its very text.
    keys = [f"{key}{i % 40}" if i % 40 < 10 else f"own{i}" for i in range(80)]
    prompts = list(source.prompts)
    prompts[79] = prompts[39]
    seen, told = [], []

    def fit(train):
        seen.append(train.prompts)
        return lambda prompts: [0] * len(prompts)

    shared = replace(source, question_keys=tuple(keys), prompts=tuple(prompts))
    figures = evaluate_engine(engine, shared, routers={"spy": fit}, draws=5, progress=told.append).figures
    assert set(seen[0]) == set(source.prompts[10:39])
    assert "11 training prompts ask a question of the test prompts: they are left out" in told
    # Baselines, the axis and training means see the same prompts as the routers.
    assert figures["rows"] == {"train": 29, "test": 40}
    assert [c["train_quality"] for c in figures["candidates"]] == pytest.approx(source.quality[10:39].mean(axis=0))
    assert figures["about"]["training prompts left out"] == "11, since the test asks their question"
    everything = replace(source, question_keys=tuple(f"{key}{i % 40}" for i in range(80)))
    with pytest.raises(
        InvalidInputError, match=r"outcomes: the test prompts of twice ask every question.*ipr data split"
    ):
        evaluate_engine(engine, everything, draws=5)


def test_settings_are_chosen_on_training_prompts_out_of_fold_where_that_is_asked_for(engine, source):
    fitted = []

    def fit(train):
        fitted.append(set(train.prompts))
        return routers.by_length(train)

    judged(engine, source, length=fit, validate_on_train=True)
    whole, *folds = fitted
    assert len(folds) == 5
    assert all(fold < whole for fold in folds)
    assert set.union(*(whole - fold for fold in folds)) == whole

    def growing(train):
        return lambda prompts: np.zeros((1 + len(train.prompts) % 2 + len(train.prompts) // 70, len(prompts)), int)

    with pytest.raises(InvalidInputError, match=r"--router grows: its fits return .* settings; .*--validation train"):
        judged(engine, source, grows=growing, validate_on_train=True)


BAD = {
    "nothing": (None, "NoneType of which numpy makes no table"),
    "ragged": ([[0, 1], [0]], "list of which numpy makes no table"),
    "too few": ([0, 1], r"\(settings, 80\).*; got an array of shape \(1, 2\)"),
    "turned": (lambda p: np.zeros((len(p), 5), int), r"shape \(\d+, 5\) \(settings come first\)"),
    "no setting": (lambda p: np.zeros((0, len(p)), int), "shape"),
    "unknown": (
        lambda p: ["alpha/huge"] * len(p),
        r"'alpha/huge', which is no candidate; the candidates are 'alpha/large'",
    ),
    "prompts": (list, "a text of a prompt, which is no candidate"),
    "position": (lambda p: [3] * len(p), "position 3; the 3 candidates have 0 to 2"),
    "negative": (lambda p: [-1] * len(p), "position -1"),
    "nan": (lambda p: [float("nan")] * len(p), "NaN: positions are whole numbers"),
    "fractions": (lambda p: [0.5] * len(p), "float64 numbers: positions are whole numbers"),
    "booleans": (lambda p: [True] * len(p), "no table of numbers or names"),
    "nan shares": (lambda p: np.full((1, len(p), 3), np.nan), "NaN or infinite shares in 80 of 80 places"),
    "shares below": (lambda p: np.tile([1.5, -0.5, 0.0], (1, len(p), 1)), "shares below 0"),
    "shares of less": (lambda p: np.tile([0.5, 0.25, 0.0], (1, len(p), 1)), "do not add up to 1.*they add up to 0.75"),
    "two candidates": (lambda p: np.ones((1, len(p), 2)) / 2, r"shape \(1, 80, 2\)"),
    "named shares": (lambda p: np.full((1, len(p), 3), "a"), "texts where shares are expected"),
    "backwards": (lambda p: [[0] * len(p), [2] * len(p)], "settings from cheap to dear.*the other way round"),
    "changing": (lambda p: np.zeros((len(p), len(p)), int), "returned 80 settings, and"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_choice_is_refused_and_says_what_to_return(engine, source, name):
    value, message = BAD[name]
    with pytest.raises(InvalidInputError, match=message) as refused:
        judged(engine, source, bad=routers.returning(value))
    assert str(refused.value).startswith("--router bad: ")
    assert not any(prompt in str(refused.value) for prompt in PROMPTS)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (routers.raising, r"while routing: KeyError in routers.py, line \d+; its text is not shown"),
        (routers.leaving, r"while fitting: SystemExit in routers.py, line \d+"),
        (routers.not_fitted, r"expected fit\(train\) to return a function route\(prompts\), got list"),
        (
            lambda: None,
            r"expected a function fit\(train\), got one that cannot be called so: too many positional arguments",
        ),
        (
            lambda train: lambda *, prompts: [],
            r"expected a function route\(prompts\), or route\(prompts, seed\), got one that cannot",
        ),
        (
            lambda train: lambda prompts, seed, more: [],
            r"expected a function route.*missing a required argument: 'more'",
        ),
        (
            lambda train: np.linalg.inv(train.quality),
            r"while fitting: LinAlgError in .*\(raised in _linalg.py, line \d+\)",
        ),
        (lambda train: train.outcomes.complete(train.quality * np.nan, train.cost_usd), r"while fitting: quality.*NaN"),
    ],
)
def test_what_fails_is_told_with_its_place_and_without_a_prompt(engine, source, fit, message):
    with pytest.raises(InvalidInputError, match=f"^--router bad: {message}") as refused:
        judged(engine, source, bad=fit)
    assert not any(prompt in str(refused.value) for prompt in PROMPTS)
    assert refused.value.__cause__ is refused.value.__context__ is None


def test_a_missing_package_is_told_with_the_router_that_needs_it(engine, source):
    def needing(train):
        need("no_such_package.part", "this router", package="no_such_package")

    with pytest.raises(
        BackendUnavailableError, match=r"^--router bad: while fitting: this router needs no_such.*pip"
    ) as refused:
        judged(engine, source, bad=needing)
    assert refused.value.__cause__ is refused.value.__context__ is None

    def importing(train):
        import no_such_package  # noqa: F401

    with pytest.raises(
        InvalidInputError, match=r"^--router bad: .*ModuleNotFoundError in .*, line \d+: no module 'no_such_package'"
    ):
        judged(engine, source, bad=importing)

    def quoting(train):
        raise ModuleNotFoundError(train.prompts[0], name=train.prompts[0])

    with pytest.raises(InvalidInputError) as refused:
        judged(engine, source, bad=quoting)
    assert not any(prompt in str(refused.value) for prompt in PROMPTS)


@pytest.mark.parametrize("name", ["a | b", "two\nlines", ""])
def test_a_name_that_would_break_a_table_is_refused(engine, source, name):
    with pytest.raises(InvalidInputError, match="--router: expected a name of printable characters"):
        judged(engine, source, **{name: routers.by_length})


@pytest.mark.parametrize("name", ["oracle", "router, worth", "router, path", "router, of my own"])
def test_a_name_of_another_line_is_refused(engine, source, name):
    with pytest.raises(InvalidInputError, match=f"{name!r} is the name of another line of the table"):
        judged(engine, source, **{name: routers.by_length})


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no_function", "expected module:function, got 'no_function'"),
        (":fit", "expected module:function"),
        ("module:", "expected module:function"),
        ("module:a.b", "expected module:function"),
        ("no_such_router:fit", "there is no module 'no_such_router'.*working folder"),
        ("tests.no_such_router:fit", "there is no module 'tests.no_such_router'"),
        ("tests.support.routers:nobody", r"has no 'nobody'; its functions: .*'by_length'"),
        (
            "tests.support.routers:a_constant",
            r"expected a function fit\(train\) that returns route\(prompts\), got int",
        ),
        (
            "broken_router:fit",
            r"while importing broken_router: ModuleNotFoundError in broken_router.py, line 2: no module 'no_such_package', install",
        ),
        ("half_router:fit", r"while importing half_router: SyntaxError in half_router.py, line 1"),
        ("script_router:fit", r"while importing script_router: SystemExit in script_router.py, line 1"),
    ],
)
def test_a_place_that_leads_nowhere_says_why(place, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_router.py").write_text("import sys\nimport no_such_package\n")
    (tmp_path / "half_router.py").write_text("def fit(train:\n")
    (tmp_path / "script_router.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(InvalidInputError, match=f"--router.*{message}"):
        load_router(place)


def test_a_router_in_a_file_of_the_working_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    (tmp_path / "router_of_this_folder.py").write_text("def fit(train):\n    return len\n")
    assert load_router("router_of_this_folder:fit")(None) is len


def test_a_fold_of_the_data_holds_its_own_rows(request):
    outcomes, _ = make_outcomes(request.node.name, rows=9, models=2)
    data = FittingData(
        candidates=("a", "b"),
        prices=(),
        prompts=tuple(map(str, range(9))),
        quality=outcomes.quality,
        cost_usd=outcomes.cost,
        embed=lambda prompts: np.zeros((len(prompts), 2)),
    )
    part = data.take(np.arange(9) % 3 == 0)
    assert part.prompts == ("0", "3", "6")
    np.testing.assert_array_equal(part.outcomes.quality, outcomes.quality[::3])


def test_a_router_that_draws_without_its_seed_is_refused(engine, source):
    def unseeded(train):
        return lambda prompts, seed: np.random.default_rng().integers(0, 2, len(prompts))

    with pytest.raises(
        InvalidInputError, match=r"--router unseeded: \d+\.\d% .* the same prompts and the same seed; draw"
    ):
        judged(engine, source, unseeded=unseeded)


@pytest.mark.parametrize("name", ["oracle", "router, path", "kNN, worth", "a | b"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_fitted(name):
    with pytest.raises(InvalidInputError, match=r"^--router: "):
        EvaluationOptions(routers={name: routers.by_length})


def test_the_names_that_are_refused_are_those_of_the_tables(engine, source):
    summary = judged(engine, source, own=routers.by_length)
    lines = {c["name"] for c in summary.figures["contenders"] if c["kind"] != "other router"}
    assert {name for name in lines if not name.startswith(OWN)} == LINES


def test_what_is_written_below_python_goes_to_stderr(capfd):
    def loud():
        ctypes.CDLL(None).puts(b"by C")
        os.write(1, b"by the system\n")
        sys.__stdout__.write("by the first stdout\n")
        subprocess.run([sys.executable, "-c", "print('by a child')"], check=True)
        return 5

    assert called("x", "fitting", loud) == 5
    os.write(1, b"the report\n")
    out, err = capfd.readouterr()
    assert out == "the report\n"
    assert sorted(err.splitlines()) == ["by C", "by a child", "by the first stdout", "by the system"]
