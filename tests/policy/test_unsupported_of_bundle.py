"""A bundle may say who answers prompts unlike its fitting data; it holds where the policy says nothing."""

from __future__ import annotations

import json

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, Price, UnsupportedDefault, with_prices, with_unsupported
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.bundle.spec import PriceList
from ipr_engine.cli import main
from ipr_engine.errors import BundleFormatError, BundleValueError, InvalidInputError
from tests.support.bundles import make_bundle

NAMED = "gemini-1.5-flash"
SAID = UnsupportedDefault(min_support=0.02, model=NAMED)
FOREIGN = "Schreibe mir bitte ein langes Gedicht über den Herbst, den alten Wald und das Meer bei Nacht."
PRICE = Price(input_usd_per_1m=1.0, output_usd_per_1m=2.0, basis="made up")
KNOWN = "Find the sum of all integers n with n^2 < 50."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return with_unsupported(Bundle.load(DEFAULT_BUNDLE), SAID, root=tmp_path_factory.mktemp("said"))


@pytest.fixture(scope="module")
def engine(folder):
    return Engine.load(folder)


def test_it_answers_where_the_policy_says_nothing(engine):
    decision = engine.route("hello", tau=0.2)
    assert (decision.model, decision.cause) == (NAMED, "unsupported")
    assert engine.route(KNOWN, tau=0.2).cause != "unsupported"
    assert engine.policy(tau=0.2).unsupported[:2] == (0.02, NAMED)


def test_the_policy_has_the_last_word(engine):
    plain = Engine.load().route("hello", tau=0.2)
    assert engine.route("hello", tau=0.2, min_support=0.0).model == plain.model
    assert engine.route("hello", tau=0.2, min_support=0.0).cause == plain.cause
    other = engine.policy(tau=0.2, unsupported="gpt-4o-mini-2024-07-18").unsupported
    assert (other.min_support, other.candidate) == (0.02, "gpt-4o-mini-2024-07-18")
    assert engine.policy(tau=0.2, min_support=0.5).unsupported == (0.5, NAMED, NAMED)


def test_where_the_policy_keeps_the_model_out_the_best_that_it_leaves_answers(engine):
    policy = engine.policy(tau=0.2, family="Claude")
    assert (policy.unsupported.min_support, policy.unsupported.asked) == (0.02, "best")
    assert engine.route("hello", policy).model == policy.unsupported.candidate


def test_a_policy_that_says_nothing_of_it_is_not_refused_where_nobody_is_known_to_be_best(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path))  # neither path rows nor a reliability table
    out = bundle.names[0]
    said = UnsupportedDefault(min_support=1.0, model=out)
    engine = Engine.load(with_unsupported(bundle, said))
    assert engine.route("hello", tau=0.2).model == out
    assert engine.route("hello", tau=0.2, exclude=[out]).cause != "unsupported"
    with pytest.raises(InvalidInputError, match="is known to be 'best'"):
        engine.policy(tau=0.2, exclude=[out], min_support=0.5)


def test_a_swap_to_a_bundle_that_leaves_it_open_is_refused_unless_allowed(folder):
    engine, plain = Engine.load(folder), Bundle.load(DEFAULT_BUNDLE)
    with pytest.raises(
        InvalidInputError, match=r"does not say who answers unsupported prompts.*allow_fewer_outputs=True"
    ):
        engine.swap(plain)
    assert engine.route("hello", tau=0.2).cause == "unsupported"
    engine.swap(plain, allow_fewer_outputs=True)
    engine.swap(folder)


def test_what_is_certified_does_not_count_such_prompts(engine):
    assert f"prompts of support below 0.02 go to {NAMED}" in str(engine.policy(tau=0.2).promise)


def test_records_replay_to_the_bit(engine, tmp_path):
    with engine.recorder(tmp_path / "log.jsonl", keep_prompts=False) as recorder:
        for prompt in (FOREIGN, KNOWN):
            recorder.route(prompt, tau=0.2)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["decision"]["cause"] == "unsupported" for line in lines] == [True, False]
    assert main(["replay", str(tmp_path / "log.jsonl"), "--bundle", str(engine.bundle.path)]) == 0


def test_info_tells_it(folder, capsys):
    assert main(["info", "--bundle", str(folder)]) == 0
    assert f"prompts of support below 0.02 go to {NAMED}" in capsys.readouterr().out
    assert main(["info", "--bundle", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unsupported"] == {"min_support": 0.02, "model": NAMED}


def test_it_is_kept_by_edits_and_goes_with_its_model(folder, tmp_path):
    bundle = Bundle.load(folder)
    assert bundle.unsupported == SAID
    dearer = PriceList(currency="USD", date="2026-12-01", prices=dict.fromkeys(bundle.names, PRICE))
    assert Bundle.load(with_prices(bundle, dearer, root=tmp_path)).unsupported == SAID
    fewer = without_candidate(bundle, "gpt-4o-2024-08-06", root=tmp_path)
    assert Bundle.load(fewer).unsupported == SAID
    assert Bundle.load(without_candidate(bundle, NAMED, root=tmp_path)).unsupported is None


def test_removing_the_model_tells_that_nobody_is_named_now(folder, tmp_path, capsys):
    for name, told in (("gpt-4o-2024-08-06", False), (NAMED, True)):
        assert main(["remove-model", name, "--bundle", str(folder), "--out", str(tmp_path)]) == 0
        assert (f"{name} answered prompts of support below 0.02" in capsys.readouterr().err) is told


def test_taking_it_back_leaves_it_to_the_policy(folder, tmp_path):
    plain = Engine.load(with_unsupported(folder, None, root=tmp_path))
    assert plain.policy(tau=0.2).unsupported.min_support == 0
    bundle = Bundle.load(DEFAULT_BUNDLE)
    assert with_unsupported(bundle, None, root=tmp_path).name == bundle.hash  # nothing to take back


@pytest.mark.parametrize(
    ("said", "error", "told"),
    [
        (
            UnsupportedDefault(min_support=0.02, model="stranger"),
            BundleFormatError,
            "unsupported.model: expected one of",
        ),
        (
            UnsupportedDefault(min_support=0.0, model=NAMED),
            BundleValueError,
            "unsupported.min_support: expected a number in",
        ),
        (
            UnsupportedDefault(min_support=1.5, model=NAMED),
            BundleValueError,
            "unsupported.min_support: expected a number in",
        ),
    ],
    ids=["stranger", "zero", "over 1"],
)
def test_what_cannot_be_meant_is_refused(said, error, told, tmp_path):
    with pytest.raises(error, match=told):
        with_unsupported(Bundle.load(DEFAULT_BUNDLE), said, root=tmp_path)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"min_support": 0.1, "model": NAMED}, "unsupported: expected an UnsupportedDefault or None, got dict"),
        (
            UnsupportedDefault(min_support="0.1", model=NAMED),
            "unsupported.min_support: expected a number, got str '0.1'",
        ),
        (UnsupportedDefault(min_support=True, model=NAMED), "unsupported.min_support: expected a number, got bool"),
        (
            UnsupportedDefault(min_support=float("nan"), model=NAMED),
            "unsupported.min_support: expected a finite number",
        ),
    ],
    ids=["dict", "text", "bool", "NaN"],
)
def test_what_is_nothing_of_the_kind_is_refused(tmp_path, said, told):
    with pytest.raises(InvalidInputError, match=told):
        with_unsupported(Bundle.load(DEFAULT_BUNDLE), said, root=tmp_path)


def test_remove_model_says_that_nobody_is_named_any_more(folder, tmp_path, capsys):
    assert main(["remove-model", NAMED, "--bundle", str(folder), "--out", str(tmp_path)]) == 0
    assert f"{NAMED} answered prompts of support below 0.02; nobody is named" in capsys.readouterr().err
    assert Bundle.load(tmp_path).unsupported is None
    other = next(name for name in Bundle.load(folder).names if name != NAMED)
    assert main(["remove-model", other, "--bundle", str(folder), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    assert Bundle.load(tmp_path).unsupported == SAID


def test_a_bundle_without_support_says_nothing_of_it(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, overrides={"support": None}))
    with pytest.raises(BundleFormatError, match="null in a bundle without support"):
        with_unsupported(bundle, UnsupportedDefault(min_support=0.1, model=bundle.names[0]))


def test_other_bundles_are_written_as_before(tmp_path):
    assert json.loads((make_bundle(tmp_path) / "bundle.json").read_text())["schema_version"] < 9
    with pytest.raises(InvalidInputError, match="needs min_support"):
        Engine.load().policy(tau=0.2, unsupported="cheapest")
