"""`ipr performance fit`: what is fitted is what the answers were made of; bad rows are named, too little is refused."""

import csv
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipr_engine import Bundle, InvalidInputError
from ipr_engine.bundle import Performance
from ipr_engine.cli import main
from ipr_engine.performance import Refusal, TimingFit, fit_timing, read_answers
from ipr_engine.performance.timing import LEAST
from tests.support import skips
from tests.support.bundles import make_bundle
from tests.support.seeds import seeded

TTFT, TPOT = 0.8, 0.02


def made(rng, answers=60):
    """Output tokens and seconds of answers, errors of 5 % of the time."""
    tokens = np.round(np.exp(rng.normal(5.5, 0.7, answers)))
    return tokens, (TTFT + TPOT * tokens) * np.exp(rng.normal(0, 0.05, answers))


def fitted(*arguments):
    found = fit_timing(*arguments)
    assert isinstance(found, TimingFit), found
    return found


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10_000), min_size=LEAST, max_size=60).filter(lambda tokens: len(set(tokens)) > 1),
    st.floats(0, 100),
    st.floats(0, 1),
)
@example([0] * 19 + [4927], 1e-5, 1.0)  # the loss without the first term differs by less than float64's digits
def test_answers_on_a_line_give_the_line(tokens, ttft, tpot):
    tokens = np.array(tokens, np.float64)
    found = fitted(tokens, ttft + tpot * tokens)
    predicted = found.ttft_s.value + found.tpot_s.value * tokens
    # a 2 x 2 system: its condition is at most (most tokens / spread)^2 here, about 1e8; float64 has 16 digits
    np.testing.assert_allclose(predicted, ttft + tpot * tokens, rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_figures_are_never_negative_and_lie_in_their_intervals(seed):
    rng = np.random.default_rng(seed)
    tokens, seconds = rng.integers(0, 500, LEAST).astype(float), rng.exponential(3, LEAST)
    for found in (fitted(tokens, seconds), fitted(tokens, seconds, seconds * rng.random(LEAST))):
        for part in (found.ttft_s, found.tpot_s):
            assert 0 <= part.low <= part.value <= part.high < np.inf


def test_a_line_that_falls_or_starts_below_zero_is_held_at_zero():
    tokens = np.arange(1.0, 61)
    assert fitted(tokens, 100 - tokens).tpot_s.value == 0
    assert fitted(tokens, np.maximum(tokens - 20, 0)).ttft_s.value == 0
    assert fitted(tokens, np.zeros(60)).tpot_s == (0, 0, 0)


@pytest.mark.parametrize("answers", [25, 60, 400])
def test_intervals_cover_the_truth_about_as_often_as_they_say(answers):
    rng, draws = seeded("coverage", answers), 100
    hits = np.zeros(2)
    for _ in range(draws):
        tokens = np.round(np.exp(rng.normal(5.5, 0.7, answers)))
        found = fitted(tokens, np.maximum(TTFT + TPOT * tokens + rng.normal(0, 0.3, answers), 0))
        parts = ((found.ttft_s, TTFT), (found.tpot_s, TPOT))
        hits += [part.low <= true <= part.high for part, true in parts]
    # 95 % less what few answers cost (5 points), less three standard errors of 100 draws
    assert (hits / draws >= 0.90 - 3 * np.sqrt(0.95 * 0.05 / draws)).all()


def test_answers_that_stalled_do_not_move_the_line_and_their_share_is_told():
    rng = seeded("stalls")
    tokens, seconds = made(rng, 200)
    before = fitted(tokens, seconds)
    stalled = seconds + np.where(np.arange(200) % 20 == 0, 60.0, 0.0)
    after = fitted(tokens, stalled)
    assert after.tpot_s.value == pytest.approx(before.tpot_s.value, rel=0.05)
    assert after.ttft_s.value == pytest.approx(before.ttft_s.value, rel=0.25)
    assert after.bias_s == pytest.approx(-3.0, abs=0.5)  # one in twenty is 60 s late
    plain = np.linalg.lstsq(np.stack([np.ones(200), tokens], axis=1), stalled, rcond=None)[0]
    assert plain[0] > 2 * before.ttft_s.value


def test_recorded_first_tokens_are_used_where_there_are_enough():
    rng = seeded("first")
    tokens, _ = made(rng)
    first = np.abs(rng.normal(2.0, 0.2, 60))
    found = fitted(tokens, first + TPOT * tokens, first)
    assert found.with_ttft
    assert found.ttft_s.value == pytest.approx(2.0, abs=0.1)
    assert found.tpot_s.value == pytest.approx(TPOT, rel=1e-6)
    constant = fitted(np.full(60, 100.0), first + 2.0, first)  # and then constant lengths do
    assert constant.tpot_s.value == pytest.approx(0.02)
    few = np.where(np.arange(60) < LEAST - 1, first, np.nan)
    assert not fitted(tokens, first + TPOT * tokens, few).with_ttft


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((np.arange(19.0), np.ones(19)), "19 answers, at least 20 are needed"),
        ((np.full(30, 7.0), np.ones(30)), "every answer has 7 output tokens, so seconds to the first token and"),
        ((np.zeros(30), np.ones(30), np.ones(30)), "no answer has output tokens"),
        ((np.arange(30.0), 700 + np.arange(30.0)), "ttft_s would be 700 seconds to the first token, at most 600 are"),
        (
            (np.arange(30.0), 9 * np.arange(30.0)),
            "tpot_s would be 9 seconds per output token, at most 5 are expected: if",
        ),
    ],
)
def test_too_little_is_refused_with_its_reason(arguments, reason):
    found = fit_timing(*arguments)
    assert isinstance(found, Refusal)
    assert reason in found.reason


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow", reason=skips.PYARROW)
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def rows_of(model, answers=30, **more):
    tokens, seconds = made(seeded(model), answers)
    return [
        {"model": model, "output_tokens": int(n), "seconds": s, **more} for n, s in zip(tokens, seconds, strict=True)
    ]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_form_reads_alike(tmp_path, ending):
    rows = [*rows_of("a", prompt="secret"), *rows_of("b", prompt="secret")]
    found = read_answers(write(tmp_path / f"answers.{ending}", rows))
    assert list(found) == ["a", "b"]
    np.testing.assert_array_equal(found["b"].seconds, [row["seconds"] for row in rows[30:]])
    milli = [{"m": r["model"], "n": r["output_tokens"], "latency_ms": 1000 * r["seconds"], "ttft_ms": 5} for r in rows]
    again = read_answers(write(tmp_path / f"ms.{ending}", milli), columns={"model": "m", "output_tokens": "n"})
    np.testing.assert_allclose(again["a"].seconds, found["a"].seconds, rtol=1e-15)
    np.testing.assert_allclose(again["a"].ttft_seconds, 0.005, rtol=1e-15)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": -1}, "row 3, column 'seconds': expected a finite number >= 0, got -1"),
        ({"seconds": float("nan")}, "row 3, column 'seconds': expected a finite number >= 0, got nan"),
        ({"seconds": float("inf")}, "expected a finite number >= 0, got inf"),
        ({"seconds": None}, "column 'seconds': expected a finite number >= 0, it is missing"),
        ({"seconds": "fast"}, "column 'seconds': expected a number, got 'fast'"),
        ({"output_tokens": -5}, "column 'output_tokens': expected a whole number >= 0, got -5"),
        ({"output_tokens": 1.5}, "column 'output_tokens': expected a whole number >= 0, got 1.5"),
        ({"model": None}, "column 'model': expected a model's name, it is missing"),
        ({"model": " "}, "column 'model': expected a model's name, it is missing"),
        ({"ttft_seconds": -1}, "column 'ttft_seconds': expected a finite number >= 0, got -1"),
        ({"ttft_seconds": 1e6}, "column 'ttft_seconds': expected at most seconds of the answer"),
    ],
)
def test_bad_rows_are_named(tmp_path, change, message):
    rows = rows_of("a", ttft_seconds=0.1)
    rows[2] = {**rows[2], **change}
    with pytest.raises(InvalidInputError) as error:
        read_answers(write(tmp_path / "answers.jsonl", rows))
    assert message in str(error.value)


def test_all_bad_rows_are_told_at_once(tmp_path):
    rows = rows_of("a")
    rows[2]["seconds"], rows[7]["output_tokens"] = -1, -1
    with pytest.raises(InvalidInputError, match=r"2 bad rows:\n.*row 8.*\n.*row 3"):
        read_answers(write(tmp_path / "answers.csv", rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"model": "a", "output_tokens": 1}],
            "expected column 'seconds' or 'latency_ms', got 'model', 'output_tokens'",
        ),
        ([{"model": "a", "seconds": 1}], "expected column 'output_tokens', .* yours: --column output_tokens=THEIRS$"),
        (
            [{"model": "a", "seconds": 1, "Output Tokens": 3, "prompt": "x"}],
            "--column output_tokens=THEIRS; 'Output Tokens' may be meant$",
        ),
        ([{"models": "a", "seconds": 1}], "expected column 'model', .*--column model=THEIRS; 'models' may be meant$"),
        ([{"model": "a", "latency": 1}], "--column latency_ms=THEIRS; 'latency' may be meant$"),
        ([{"seconds": 1, "latency_ms": 1}], "expected one of the columns seconds and latency_ms, got both"),
    ],
)
def test_missing_and_double_columns_are_named(tmp_path, rows, message):
    with pytest.raises(InvalidInputError, match=message):
        read_answers(write(tmp_path / "answers.csv", rows))


@pytest.fixture
def log(tmp_path):
    rows = [*rows_of("vendor/big"), *rows_of("beta/mid"), *rows_of("few", 3), *rows_of("other")]
    return write(tmp_path / "log.jsonl", rows)


def test_what_is_fitted_goes_into_a_bundle(tmp_path, log, capsys):
    bundle = Bundle.load(make_bundle(tmp_path))
    fit = ["performance", "fit", str(log), "--as", "alpha/large=vendor/big", "--bundle", str(bundle.path), "--json"]
    assert main(fit) == 0
    told = capsys.readouterr()
    assert "few is no candidate of the bundle; left out" in told.err
    document = json.loads(told.out)
    assert set(document["performance"]) == set(document["fits"]) == {"alpha/large", "beta/mid"}
    file = tmp_path / "figures.json"
    file.write_text(told.out)
    assert main(["set-performance", str(file), "--bundle", str(bundle.path)]) == 0
    new = Bundle.load(bundle.path.parent)
    figures = {c.name: c.performance for c in new.candidates}
    assert figures["gamma/small"] is None
    assert figures["beta/mid"] == Performance(**document["performance"]["beta/mid"])
    fit_of = document["fits"]["beta/mid"]
    assert figures["beta/mid"].tpot_s == pytest.approx(fit_of["tpot_s"]["value"], rel=1e-5)
    assert figures["beta/mid"].basis.startswith("fitted to 30 answers of log.jsonl, mean error out of fold")


def test_a_model_that_cannot_be_fitted_is_told_and_the_others_are(log, capsys):
    assert main(["performance", "fit", str(log)]) == 3
    told = capsys.readouterr()
    assert "ipr performance: few: not fitted: 3 answers, at least 20 are needed" in told.err
    assert "vendor/big" in told.out
    assert main(["performance", "fit", str(log), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["refused"] == {"few": "3 answers, at least 20 are needed"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--as", "a=nobody"], "--as: the file has no model 'nobody'; it has vendor/big, beta/mid"),
        (["--as", "a"], "--as: expected NAME=KEY, each name once, got 'a'"),
        (["--as", "a=other", "--as", "b=other"], "--as: expected one name for each model"),
        (["--as", "few=other"], "--as: the file has a model 'few' already; leave out few=other"),
        (["--column", "seconds"], "--column: expected NAME=THEIRS such as"),
        (["--column", "seconds=nothing"], "has no column 'nothing'"),
    ],
)
def test_options_of_another_form_are_refused(log, options, message, capsys):
    assert main(["performance", "fit", str(log), *options]) == 1
    assert message in capsys.readouterr().err


def test_nothing_to_fit_is_an_error(tmp_path, capsys):
    file = write(tmp_path / "few.csv", rows_of("a", 3))
    assert main(["performance", "fit", str(file)]) == 1
    told = capsys.readouterr()
    assert "nothing could be fitted to the answers of any model" in told.err
    assert "3 answers, at least 20" in told.err
    assert not told.out


@pytest.mark.parametrize("column", ["ttft", "ttft_s", "TTFT", "ttft_second"])
def test_a_column_that_looks_like_the_first_token_s_is_told(tmp_path, column, capsys):
    file = write(tmp_path / "answers.csv", rows_of("a", **{column: 0.3, "prompt": "secret", "total": 9}))
    assert main(["performance", "fit", str(file)]) == 0
    told = capsys.readouterr().err
    assert (
        f"column {column!r} is not read; if it is the time of the first token, say --column ttft_seconds={column}"
        in told
    )
    assert len(told.splitlines()) == 1
    assert main(["performance", "fit", str(file), "--column", f"ttft_seconds={column}"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "30 (ttft)" in told.out


def test_answers_that_are_not_read_for_their_first_token_are_told(tmp_path, capsys):
    some = [{**row, "ttft_seconds": 0.1 if n < 25 else None} for n, row in enumerate(rows_of("a"))]
    few = [{**row, "ttft_seconds": 0.1 if n < 7 else None} for n, row in enumerate(rows_of("b"))]
    file = write(tmp_path / "answers.jsonl", [*some, *few, *rows_of("c")])
    assert main(["performance", "fit", str(file), "--json"]) == 0
    told = capsys.readouterr()
    assert told.err.splitlines() == [
        "ipr performance: a: 5 answers have no time of the first token and are left out, the other 25 do",
        "ipr performance: b: 7 of 30 answers have the time of the first token, at least 20 are needed; the line is fitted to whole "
        "answers",
    ]
    fits = json.loads(told.out)["fits"]
    assert [(one["answers"], one["left_out"]) for one in fits.values()] == [(25, 5), (30, 0), (30, 0)]
    assert main(["performance", "fit", str(file)]) == 0
    assert "25 of 30 (ttft)" in capsys.readouterr().out


def test_errors_and_their_sign_are_shown_and_named(tmp_path, capsys):
    rows = rows_of("a", 60)
    for row in rows[::20]:
        row["seconds"] += 60.0
    file = write(tmp_path / "answers.csv", rows)
    assert main(["performance", "fit", str(file)]) == 0
    head, line, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == ["model", "answers", "ttft_s", "tpot_s", "error_s", "bias_s", "error_of_mean_s"]
    assert main(["performance", "fit", str(file), "--json"]) == 0
    [fit] = json.loads(capsys.readouterr().out)["fits"].values()
    assert fit["bias_s"] == pytest.approx(-3.0, abs=0.5)  # three of sixty are 60 s late
    assert line.split()[-3:] == [f"{fit['error_s']:.3g}", f"{fit['bias_s']:+.3g}", f"{fit['error_of_mean_s']:.3g}"]


def test_answers_timed_in_milliseconds_under_the_name_of_seconds_are_refused(tmp_path, capsys):
    rows = [{**row, "seconds": 1000 * row["seconds"]} for row in rows_of("a")]
    file = write(tmp_path / "answers.csv", rows)
    assert main(["performance", "fit", str(file)]) == 1
    assert "if the times are milliseconds, say so by the column's name (latency_ms, ttft_ms)" in capsys.readouterr().err
    assert main(["performance", "fit", str(file), "--column", "latency_ms=seconds"]) == 0
