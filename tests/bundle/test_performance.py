"""`performance` of a candidate: written, read, checked, kept by every edit, told by `ipr info`; set from a file."""

import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine import Bundle, Engine, InvalidInputError
from ipr_engine.bundle import (
    BundleParts,
    Performance,
    Price,
    PriceList,
    with_calibrations,
    with_extra_files,
    with_performance,
    with_prices,
    write_bundle,
)
from ipr_engine.bundle.candidate_entry import candidate_json, parse_candidates, version_of
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.bundle.edit import NewCandidate, with_candidate, without_candidate
from ipr_engine.bundle.fields import parse_json
from ipr_engine.bundle.head_rows import row_of
from ipr_engine.bundle.performance import MOST_SECONDS, UNITS
from ipr_engine.bundle.spec import canonical_json
from ipr_engine.cli import main
from ipr_engine.errors import BundleError, BundleFormatError, BundleValueError
from tests.support.bundles import bundle_parts, make_bundle, make_prices
from tests.support.two_tier_bundles import join, make_tiers

FAST = Performance(ttft_s=0.25, tpot_s=0.01, basis="measured")
LEAN = Performance(wh_per_request=0.0, wh_per_1m_input=3.0, wh_per_1m_output=40.5)
FIGURES = {"alpha/large": FAST, "gamma/small": LEAN}  # beta/mid has none


def parts_with(folder, figures=FIGURES, **shape):
    parts = bundle_parts(folder, **shape)
    parts["candidates"] = [replace(c, performance=figures.get(c.name)) for c in parts["candidates"]]
    return parts


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    return Bundle.load(write_bundle(folder / "bundles", BundleParts(**parts_with(folder))))


def figures_of(bundle):
    return {c.name: c.performance for c in bundle.candidates if c.performance is not None}


def manifest_of(bundle):
    return json.loads((bundle.path / "bundle.json").read_text())


def test_figures_survive_writing_in_version_7_and_only_where_stated(measured, tmp_path):
    assert figures_of(measured) == FIGURES
    manifest = manifest_of(measured)
    assert manifest["schema_version"] == 7
    assert ["performance" in entry for entry in manifest["candidates"]] == [True, False, True]
    assert manifest["candidates"][0]["performance"] == {"ttft_s": 0.25, "tpot_s": 0.01, "basis": "measured"}
    plain = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**bundle_parts(tmp_path / "sources"))))
    assert manifest_of(plain)["schema_version"] == 1
    assert "performance" not in (plain.path / "bundle.json").read_text()


def test_whole_numbers_as_int_or_float_give_the_same_hash(tmp_path):
    made = [
        write_bundle(tmp_path / "b", BundleParts(**parts_with(tmp_path / "s", {"beta/mid": Performance(ttft_s=one)})))
        for one in (1, 1.0)
    ]
    assert made[0] == made[1]


def amounts(most):
    return st.one_of(st.none(), st.floats(0, most, allow_nan=False), st.integers(0, int(most)))


performances = (
    st.builds(
        Performance,
        **{key: amounts(MOST_SECONDS.get(key, 1e12)) for key in UNITS},
        basis=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    )
    .filter(lambda figures: any(getattr(figures, key) is not None for key in UNITS))
    .map(lambda f: replace(f, **{key: float(v) for key in UNITS if (v := getattr(f, key)) is not None}))
)


@given(performances)
def test_any_figures_survive_their_json_form(figures):
    candidate = replace(bundle_candidate(), performance=figures)
    assert version_of([candidate]) == 7
    field = parse_json(canonical_json([candidate_json(candidate, 7)]), "bundle.json")
    assert parse_candidates(field, 7) == (candidate,)


def bundle_candidate():
    from tests.support.bundles import make_candidates

    return make_candidates(1)[0]


@pytest.mark.parametrize(
    ("figures", "error", "message"),
    [
        ({"ttft_s": -1, "basis": "b"}, BundleValueError, r"candidates\[0\].performance.ttft_s: expected a number >= 0"),
        ({"ttft_s": True, "basis": "b"}, BundleFormatError, "ttft_s: expected a number, got True"),
        ({"tpot_s": 1e13, "basis": "b"}, BundleValueError, "tpot_s: expected a number up to 1e[+]12"),
        (
            {"tpot_s": 5.01, "basis": "b"},
            BundleValueError,
            "tpot_s: expected a number of seconds per output token, at most 5",
        ),
        (
            {"ttft_s": 601, "basis": "b"},
            BundleValueError,
            "got 601; it is in seconds: if these are milliseconds, divide",
        ),
        (
            {"tpot_ms": 14, "basis": "b"},
            BundleFormatError,
            "unknown key 'tpot_ms'; times are in seconds: if these are mill",
        ),
        ({"tpot_s": float("nan"), "basis": "b"}, BundleValueError, "tpot_s: expected a finite number"),
        ({"wh": 1, "basis": "b"}, BundleFormatError, r"performance.wh: expected one of ttft_s \(seconds to the first"),
        ({"ttft_s": 1}, BundleFormatError, "performance.basis: expected this key"),
        ({"ttft_s": 1, "basis": " "}, BundleFormatError, "basis: expected a text that is not empty"),
        ({"ttft_s": 1, "basis": "\ud800"}, BundleFormatError, "basis: expected Unicode text"),
        ({"basis": "b"}, BundleFormatError, "expected at least one of ttft_s"),
        ([], BundleFormatError, r"candidates\[0\].performance: expected an object"),
        (None, BundleFormatError, r"candidates\[0\].performance: expected an object"),
    ],
)
def test_damaged_figures_are_named(measured, tmp_path, figures, error, message):
    copy = shutil.copytree(measured.path, tmp_path / "copy")
    manifest = manifest_of(measured)
    manifest["candidates"][0]["performance"] = figures
    (copy / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(error, match=message):
        Bundle.load(copy)


def test_earlier_versions_know_no_figures(measured, tmp_path):
    copy = shutil.copytree(measured.path, tmp_path / "copy")
    (copy / "bundle.json").write_text(json.dumps(manifest_of(measured) | {"schema_version": 6}))
    with pytest.raises(BundleFormatError, match="unknown key 'performance'"):
        Bundle.load(copy)


def test_figures_that_would_not_load_are_not_written(tmp_path):
    with pytest.raises(BundleError, match=r"performance.ttft_s"):
        write_bundle(tmp_path / "b", BundleParts(**parts_with(tmp_path / "s", {"beta/mid": Performance(ttft_s=-1.0)})))
    assert not list((tmp_path / "b").glob("*"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda bundle, root: with_prices(bundle, make_prices(list(bundle.candidates), scale=2.0), root=root),
        lambda bundle, root: with_prices(bundle, cached_prices(bundle), root=root),
        lambda bundle, root: with_extra_files(bundle, {"card.md": b"a card"}, root=root),
        lambda bundle, root: with_calibrations(bundle, [], root=root),
        lambda bundle, root: without_candidate(bundle, "beta/mid", root=root),
    ],
)
def test_every_edit_keeps_the_figures(measured, tmp_path, edit):
    assert figures_of(Bundle.load(edit(measured, tmp_path / "out"))) == FIGURES


def cached_prices(bundle):
    price = Price(input_usd_per_1m=1.0, output_usd_per_1m=2.0, cached_read_usd_per_1m=0.1, basis="made up")
    return PriceList(date="2026-11-24", prices=dict.fromkeys(bundle.names, price))


def test_a_candidate_more_brings_its_figures_and_keeps_the_others(measured, tmp_path):
    rows = row_of(measured.quality_heads.tensors, 0)
    price = Price(input_usd_per_1m=1.0, output_usd_per_1m=2.0, basis="made up")
    plain = Bundle.load(write_bundle(tmp_path / "plain", BundleParts(**bundle_parts(tmp_path / "sources"))))
    for old, kept in ((measured, FIGURES), (plain, {})):
        new = replace(old.candidates[0], name="new", performance=FAST)
        made = Bundle.load(
            with_candidate(old, NewCandidate(candidate=new, price=price, rows=rows, note={}), root=tmp_path / "out")
        )
        assert figures_of(made) == {**kept, "new": FAST}


def test_two_tiers_take_the_figures_of_either_and_refuse_others(tmp_path):
    tiers = make_tiers(tmp_path)
    first = Bundle.load(with_performance(tiers[0], {"alpha/large": FAST}, root=tmp_path / "f"))
    second = Bundle.load(with_performance(tiers[1], {"gamma/small": LEAN}, root=tmp_path / "s"))
    assert figures_of(join(tmp_path, (first, second))) == FIGURES
    assert figures_of(join(tmp_path, (first, first_like(tiers[1], tmp_path)))) == {"alpha/large": FAST}
    other = Bundle.load(with_performance(tiers[1], {"alpha/large": LEAN}, root=tmp_path / "o"))
    with pytest.raises(InvalidInputError, match="that of alpha/large is another"):
        join(tmp_path, (first, other))


def first_like(bundle, folder):
    return Bundle.load(with_performance(bundle, {"alpha/large": FAST}, root=folder / "same"))


def test_new_figures_change_nothing_else_and_can_be_taken_away(measured, tmp_path):
    changed = Bundle.load(with_performance(measured, {"beta/mid": LEAN, "alpha/large": None}, root=tmp_path))
    assert figures_of(changed) == {"beta/mid": LEAN, "gamma/small": LEAN}
    old, new = manifest_of(measured), manifest_of(changed)
    for document in (old, new):
        for entry in document["candidates"]:
            entry.pop("performance", None)
    assert old == new
    back = with_performance(changed, {"beta/mid": None, "alpha/large": FAST}, root=tmp_path)
    assert back.name == measured.hash
    with pytest.raises(InvalidInputError, match="performance: unknown candidate 'nobody'; known: alpha/large"):
        with_performance(measured, {"nobody": FAST})


def test_a_bundle_of_any_earlier_version_can_gain_figures_and_decides_as_before(tmp_path):
    old = Bundle.load(make_bundle(tmp_path))
    new = Bundle.load(with_performance(old, {"beta/mid": FAST}, root=tmp_path / "out"))
    prompts = ["prove the code", "a story"]
    before, after = (Engine(bundle).route_many(prompts, tau=0.3) for bundle in (old, new))
    assert before.models == after.models
    assert before.costs_usd.tobytes() == after.costs_usd.tobytes()


def test_the_candidates_file_may_state_them(tmp_path):
    entry = {"name": "a", "family": "f", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 1}
    file = tmp_path / "candidates.json"

    def read(figures):
        file.write_text(json.dumps({"date": "2026-11-24", "candidates": [{**entry, "performance": figures}]}))
        return read_candidates(file).candidates[0].performance

    assert read(None) is None
    assert read({"ttft_s": 1}) == Performance(ttft_s=1.0, basis="given in candidates.json")
    assert read({"tpot_s": 0.5, "basis": "mine"}) == Performance(tpot_s=0.5, basis="mine")
    for bad, message in (
        ({"ttft_s": -1}, r"candidates\[0\].performance.ttft_s: expected a number >= 0, got -1"),
        ({"ttft": 1}, r"candidates\[0\].performance.ttft: expected one of ttft_s \(seconds to the first token\)"),
        ([1], r"candidates\[0\].performance: expected an object of figures, or null"),
        ({"ttft_s": 1, "basis": "\ud800"}, "basis: expected Unicode text"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read(bad)


def test_info_tells_them(measured, capsys):
    assert main(["info", "--bundle", str(measured.path), "--json"]) == 0
    told = [candidate["performance"] for candidate in json.loads(capsys.readouterr().out)["candidates"]]
    assert told[:2] == [{"ttft_s": 0.25, "tpot_s": 0.01, "basis": "measured"}, None]
    assert main(["info", "--bundle", str(measured.path)]) == 0
    text = capsys.readouterr().out
    assert "performance, of 2 of 3 candidates" in text
    assert "alpha/large  0.25 seconds to the first token, 0.01 seconds per output token (measured)" in text


def set_performance(measured, tmp_path, name, text, *more):
    file = tmp_path / name
    file.write_text(text)
    return main(["set-performance", str(file), "--bundle", str(measured.path), "--out", str(tmp_path / "out"), *more])


def test_setting_them_from_json_tells_what_changed(measured, tmp_path, capsys):
    given = {"alpha/large": {"ttft_s": 0.5, "wh_per_request": 1}, "gamma/small": None}
    document = {"performance": given, "fits": {}, "refused": {}}
    assert set_performance(measured, tmp_path, "new.json", json.dumps(document)) == 0
    assert figures_of(Bundle.load(tmp_path / "out")) == {
        "alpha/large": Performance(ttft_s=0.5, wh_per_request=1.0, basis="given in new.json")
    }
    told, aside = capsys.readouterr()
    assert "alpha/large: " in aside
    assert "does not say tpot_s, not known any more" in aside
    for line in ("alpha/large:", "ttft_s: 0.25 -> 0.5", "tpot_s: 0.01 -> null", "wh_per_request: null -> 1.0"):
        assert line in told
    assert "gamma/small: no figures any more" in told
    assert set_performance(measured, tmp_path, "new.json", json.dumps(document), "--json") == 0
    assert json.loads(capsys.readouterr().out)["changed"] == ["alpha/large", "gamma/small"]


def test_setting_them_from_a_csv_leaves_the_others(measured, tmp_path, capsys):
    text = "# of the vendor\nmodel,tpot_s,wh_per_1m_output,basis\nbeta/mid,0.02,,page 3\nalpha/large,,7,\n"
    assert set_performance(measured, tmp_path, "new.csv", text) == 0
    assert figures_of(Bundle.load(tmp_path / "out")) == {
        "alpha/large": Performance(wh_per_1m_output=7.0, basis="given in new.csv"),
        "beta/mid": Performance(tpot_s=0.02, basis="page 3"),
        "gamma/small": LEAN,
    }
    capsys.readouterr()
    text = "model,ttft_s,tpot_s,basis\nalpha/large,0.25,0.01,measured\n"
    assert set_performance(measured, tmp_path, "same.csv", text) == 0
    assert "nothing changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", "performance: expected this key"),
        ("a.json", '{"performance": {}}', "at least one candidate's figures"),
        ("a.json", '{"performance": {"nobody": {"ttft_s": 1}}}', "expected one of alpha/large, beta/mid, gamma/small"),
        ("a.json", '{"performance": {"beta/mid": {"ttft": 1}}}', "performance.beta/mid.ttft: expected one of ttft_s"),
        ("a.json", '{"performance": {"beta/mid": {"ttft_s": "1"}}}', "ttft_s: expected a number, got '1'"),
        ("a.json", '{"more": 1, "performance": {"beta/mid": null}}', "unknown key 'more'"),
        ("a.csv", "", "expected the column model"),
        ("a.csv", "model,ttft_ms\nbeta/mid,1\n", "others of ttft_s (seconds to the first token)"),
        ("a.csv", "model,ttft_ms\nbeta/mid,1\n", "if these are milliseconds, divide by 1,000"),
        (
            "a.csv",
            "model,tpot_s\nbeta/mid,14.2\n",
            "row 1: tpot_s: expected a number of seconds per output token, at most 5",
        ),
        ("a.csv", "model,ttft_s,ttft_s\nbeta/mid,1,2\n", "distinct others"),
        ("a.csv", "model,ttft_s\n", "at least one candidate's figures"),
        ("a.csv", "model,ttft_s\nbeta/mid\n", "a.csv, row 1: expected 2 cells"),
        ("a.csv", "model,ttft_s\nnobody,1\n", "a.csv, row 1: model: expected one of alpha/large"),
        ("a.csv", "model,ttft_s\nbeta/mid,1\nbeta/mid,2\n", "stands twice"),
        ("a.csv", "model,ttft_s\nbeta/mid,fast\n", "ttft_s: expected a number of seconds to the first token"),
        ("a.csv", "model,ttft_s\nbeta/mid,nan\n", "ttft_s: expected a finite number, got nan"),
        ("a.csv", "model,ttft_s\nbeta/mid,-1\n", "ttft_s: expected a number >= 0, got -1.0"),
        ("a.csv", "model,ttft_s\nbeta/mid,\n", "at least one of ttft_s"),
        ("a.csv", 'model,ttft_s\nbeta/mid,"1\n', "is not CSV"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name_and_nothing_is_written(
    measured, tmp_path, capsys, name, text, message
):
    assert set_performance(measured, tmp_path, name, text) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["new.json", "new.csv"])
def test_a_candidate_may_be_called_otherwise_in_the_file(measured, tmp_path, capsys, name):
    rows = {"new.json": '{"performance": {"lab/mid": {"ttft_s": 0.3}, "gamma/small": null}}'}
    text = rows.get(name, "model,ttft_s\nlab/mid,0.3\n")
    assert set_performance(measured, tmp_path, name, text, "--as", "beta/mid=lab/mid") == 0
    made = figures_of(Bundle.load(tmp_path / "out"))
    assert made["beta/mid"] == Performance(ttft_s=0.3, basis=f"given in {name}")
    assert ("gamma/small" in made) is (name == "new.csv")
    for pair, message in (
        ("nobody=lab/mid", "as: unknown candidate nobody; known: alpha/large"),
        ("beta/mid=lab/large", "lab/large"),
        ("beta/mid", "--as: expected NAME=KEY, each name once"),
    ):
        assert set_performance(measured, tmp_path, name, text, "--as", pair) == 1
        assert message in capsys.readouterr().err
    assert set_performance(measured, tmp_path, name, text) == 1
    assert "or say what it is called there with --as NAME=KEY" in capsys.readouterr().err


def test_a_name_that_the_file_lacks_is_told(measured, tmp_path, capsys):
    text = "model,ttft_s\nalpha/large,1\n"
    assert set_performance(measured, tmp_path, "a.csv", text, "--as", "beta/mid=lab/mid") == 1
    assert "as: a.csv has no 'lab/mid' for beta/mid; it has alpha/large" in capsys.readouterr().err
