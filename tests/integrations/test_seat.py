"""A seat decides as the engine does, and goes on without a bundle."""

from __future__ import annotations

import asyncio
import logging
import shutil

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError, RowError
from ipr_engine.errors import BundleError, BundleNotFoundError
from ipr_engine.integrations import shared_engine as sharing
from ipr_engine.integrations.seat import Said, Seat, told
from ipr_engine.policy.rules import DEFAULT_TAU
from ipr_engine.request.wrong_control import WrongControlError
from tests.support.bundles import make_bundle, make_siblings
from tests.support.callers import until
from tests.support.task_bundles import make_task_bundle

TIERS = {"large": "alpha/large", "mid": "beta/mid", "small": "gamma/small"}
MID = "gpt-4o-mini-2024-07-18"
BODY = {"messages": [{"role": "user", "content": "prove the code"}], "model": "auto"}


@pytest.fixture
def seat(engine):
    return Seat(TIERS, {"tau": 0.3}, bundle=engine)


def decide(seat, body=BODY, headers=None, among=None):
    return asyncio.run(seat.decide(body, seat.policy(Said(headers), among)))


def test_it_decides_as_the_engine(seat, engine):
    expected = engine.route(BODY, tau=0.3, allowed=list(TIERS.values()))
    assert decide(seat).decision.to_dict() == expected.to_dict()


def test_an_embedded_bundle_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Seat({"a": "glm-5"}, {"tau": 0.3}, bundle="default-2026").engine.bundle.name == "default-2026"


def test_among_fewer_it_decides_as_the_engine_allowed_these(seat, engine):
    among = {"beta/mid", "gamma/small", "delta/tiny"}  # the last one is not the seat's
    expected = engine.route(BODY, tau=0.3, allowed=["beta/mid", "gamma/small"])
    assert decide(seat, among=among).decision.to_dict() == expected.to_dict()


def test_the_operators_own_list_bounds_what_a_request_may_name(engine):
    seat = Seat(TIERS, {"tau": 1.0, "allowed": ["alpha/large", "beta/mid"]}, bundle=engine)
    assert seat.policy().allowed == ("alpha/large", "beta/mid")
    assert decide(seat, headers={"x-ipr-allowed": "mid"}).decision.model == "beta/mid"
    with pytest.raises(WrongControlError, match="x-ipr-allowed: nobody is left"):
        seat.policy(Said({"x-ipr-allowed": "small"}))
    assert seat.policy(Said({"x-ipr-allowed": "small, Mid"})).allowed == ("beta/mid",)
    with pytest.raises(WrongControlError, match="x-ipr-allowed: unknown 'delta/tiny'; known: alpha/large"):
        seat.policy(Said({"x-ipr-allowed": "delta/tiny"}))  # of the bundle, and no tier's


@pytest.mark.parametrize(
    ("headers", "field", "meant"),
    [
        ({"x-ipr-preset": "cost"}, None, {"preset": "cost"}),
        ({"x-ipr-rule": "minmax"}, {"worth": 0.25}, {"tau": 0.3, "rule": "minmax", "worth": 0.25}),
        ({"x-ipr-exclude": "mid"}, None, {"tau": 0.3, "exclude": ["gpt-4o-mini-2024-07-18"]}),
        ({"x-ipr-family": "claude"}, {"tau": 0.9}, {"tau": 0.9, "family": "claude"}),
        (
            {"x-ipr-min-support": "0.5", "x-ipr-unsupported": "mid"},
            None,
            {"tau": 0.3, "min_support": 0.5, "unsupported": MID},
        ),
        (None, '{"cost_weights": {"usd": 2}}', {"tau": 0.3, "cost_weights": {"usd": 2}}),
    ],
)
def test_a_request_may_set_every_option_of_a_policy_as_the_engine_takes_it(default_engine, headers, field, meant):
    tiers = {name: name for name in default_engine.bundle.names if name != "gpt-4o-2024-08-06"}
    seat = Seat({**tiers, "mid": MID}, {"tau": 0.3, "exclude": ["gemini-1.5-flash"]}, bundle=default_engine)
    narrower = default_engine.policy(
        tau=0.3, **{name: meant.pop(name) for name in ("exclude", "family") if name in meant}
    )
    allowed = [name for name in tiers if name != "gemini-1.5-flash" and name in narrower.allowed]
    expected = default_engine.policy(**{"tau": 0.3, **meant} if "preset" not in meant else meant, allowed=allowed)
    assert seat.policy(Said(headers, [("metadata.ipr", field)])) == expected


@pytest.mark.parametrize("aim", [{"quality_share": 0.9}, {"preset": "cost"}])
def test_an_aim_of_the_operators_stands_in_place_of_tau(default_engine, aim):
    assert Seat(None, aim, bundle=default_engine).policy() == default_engine.policy(
        **aim, allowed=list(default_engine.bundle.names)
    )


def test_without_an_aim_tau_is_that_of_the_server(engine):
    assert Seat(None, {}, bundle=engine).policy().tau == DEFAULT_TAU == 0.1
    assert Seat(None, {"tau": None}, bundle=engine).policy().tau == DEFAULT_TAU


@pytest.mark.parametrize(
    ("names", "options", "more", "reason"),
    [
        ({"large": "nobody"}, {}, {}, "tiers: unknown 'nobody'"),
        ([], {}, {}, "tiers: expected at least one"),
        (None, {"tau": 2.0}, {}, "tau: expected"),
        (None, {"allowed": ["nobody"]}, {}, "allowed: unknown 'nobody'"),
        (None, {}, {"controls": ["prices"]}, "controls: expected some of tau"),
        (None, {}, {"controls": "tau"}, "controls: expected some of tau"),
        (None, {}, {"assumed_tokens": 0}, "assumed_tokens: expected a whole number"),
        (None, {}, {"watch_s": 1.0}, "watch_s: expected a bundle root"),
        (None, {}, {"bundle": 3}, "bundle: expected a path"),
    ],
)
def test_what_its_operator_says_wrongly_is_refused_at_once(engine, names, options, more, reason):
    with pytest.raises(InvalidInputError, match=reason):
        Seat(names, options, **{"bundle": engine, **more})


def test_an_image_is_needed_and_not_counted(seat):
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "what is it"}, image]}]}
    answer = decide(seat, body)
    assert answer.decision.model == "gamma/small"  # the only one that sees
    told = answer.headers(answer.decision.model)
    assert (told["x-ipr-uncounted"], told["x-ipr-assumed-tokens"]) == ("image_url", "1000")
    assert answer.decision.billed_tokens == 1000 + decide(seat, {"prompt": "what is it"}).decision.billed_tokens
    assert "x-ipr-saved-usd" not in told  # the best single candidate does not see


def test_nothing_is_assumed_where_the_operator_says_so(engine):
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    seat = Seat(TIERS, {"tau": 0.3}, bundle=engine, assumed_tokens=None)
    with pytest.raises(InvalidInputError, match="billed_tokens"):
        decide(seat, {"messages": [{"role": "user", "content": [{"type": "text", "text": "what"}, image]}]})


def test_saved_is_told_against_the_best_single_candidate(default_engine):
    answer = decide(Seat(None, {"tau": 0.5}, bundle=default_engine))
    decision = answer.decision
    names = decision.bundle.names
    best = names.index(decision.policy.promise.best)
    for served in (decision.model, *decision.ranked[1:3]):
        saved = decision.usd_of(best) - decision.usd_of(names.index(served))
        assert float(answer.headers(served)["x-ipr-saved-usd"]) == pytest.approx(saved, rel=1e-5)


def test_the_headers_tell_who_answers(seat):
    answer = decide(seat)
    decision = answer.decision
    chosen, other = decision.ranked[:2]
    assert answer.headers(chosen)["x-ipr-candidate"] == chosen
    assert answer.headers(chosen)["x-ipr-cause"] == decision.cause != "fallback"
    told = answer.headers(other)
    assert (told["x-ipr-candidate"], told["x-ipr-cause"]) == (other, "fallback")
    assert float(told["x-ipr-cost-usd"]) == pytest.approx(decision.usd_of(decision.bundle.names.index(other)), rel=1e-5)
    for nobody in (None, "no/candidate"):
        told = answer.headers(nobody)
        assert told["x-ipr-cause"] == "fallback"
        assert told.keys() == {"x-ipr-cause", "x-ipr-tau", "x-ipr-bundle", "x-ipr-support"}


def test_what_becomes_of_requests_is_counted_and_observed(engine):
    seen = []
    seat = Seat(TIERS, {}, bundle=engine, observe=lambda outcome, detail: seen.append((outcome, detail)))
    model = decide(seat).decision.model
    seat.failed(RowError([0], ["none_allowed"]))
    assert dict(seat.counts) == {("decided", model): 1, ("undecided", "RowError"): 1}
    assert seen == [("decided", model), ("undecided", "RowError")]


def test_an_error_fits_a_header():
    assert told(InvalidInputError("a:\r\n  b \u2026" + 400 * "c")) == ("a: b ?" + 400 * "c")[:300]
    assert told(asyncio.CancelledError()) == "CancelledError"


def test_of_an_error_that_nobody_foresaw_no_text_is_told(seat, caplog):
    error = KeyError("a prompt, perhaps")
    seat.failed(error)
    assert told(error) == "KeyError"
    assert "no decision: KeyError" in caplog.text
    assert "perhaps" not in caplog.text


def test_seats_of_one_path_share_an_engine(bundle_folder):
    one, other = (Seat(None, {}, bundle=bundle_folder) for _ in range(2))
    assert one.engine is other.engine
    assert one.engine is not Seat(None, {}, bundle=AsyncEngine.load(bundle_folder)).engine


def test_a_bundle_that_arrives_later_is_served_then(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sharing, "AGAIN_S", 0.0)
    with caplog.at_level(logging.ERROR):
        seat = Seat(TIERS, {}, bundle=tmp_path / "later")
    assert "no decision is made until this bundle can be loaded" in caplog.text
    with pytest.raises(BundleNotFoundError):
        decide(seat)
    with pytest.raises(WrongControlError):  # read without a bundle
        seat.policy(Said({"x-ipr-tau": "much"}))
    root = make_bundle(tmp_path / "made", models=5, dim=16).parent
    shutil.copytree(root, tmp_path / "later")

    def served() -> bool:
        try:
            return decide(seat).decision.model in TIERS.values()
        except BundleError:
            return False

    until(served)


def test_a_bundle_that_lacks_a_candidate_after_a_swap_is_no_fault_of_the_request(engine, tmp_path):
    own = Engine(engine.bundle)
    seat = Seat(TIERS, {}, bundle=own)
    own.swap(make_bundle(tmp_path, models=2, dim=16), allow_fewer_candidates=True, allow_other_encoder=True)
    with pytest.raises(InvalidInputError, match="tiers: unknown 'gamma/small'") as error:
        seat.policy(Said({"x-ipr-tau": "0.5"}))
    assert not isinstance(error.value, WrongControlError)


def test_current_is_followed_where_asked(tmp_path):
    first, second = make_siblings(tmp_path, 2, models=5)
    current = first.parent / "CURRENT"
    current.write_text(first.name)
    seat = Seat(TIERS, {}, bundle=first.parent, watch_s=0.01)
    assert decide(seat).decision.bundle_hash == first.name
    current.write_text(second.name)
    until(lambda: decide(seat).decision.bundle_hash == second.name)
    other = make_bundle(tmp_path / "other", models=5, dim=8)  # another encoder: nobody keeps embeddings of a seat
    other.rename(first.parent / other.name)
    current.write_text(other.name)
    until(lambda: decide(seat).decision.bundle_hash == other.name)


@pytest.fixture(scope="module")
def with_tasks(tmp_path_factory):
    return Engine.load(make_task_bundle(tmp_path_factory.mktemp("tasks")))


def for_task(seat, said):
    return asyncio.run(seat.decide(BODY, seat.policy(said), seat.task(said)))


def test_a_task_is_decided_as_by_the_engine_and_one_that_is_unknown_is_told(with_tasks):
    seat = Seat(None, {"tau": 0.3}, bundle=with_tasks)
    said = {
        "header": Said({"x-ipr-task": "sql"}),
        "object": Said(None, [("metadata.ipr", {"task": "sql"})]),
        "metadata": Said(None, (), [("task", "metadata.ipr_task", "sql")]),
    }
    expected = with_tasks.route(BODY, tau=0.3, task="sql").to_dict()
    for one in said.values():
        assert for_task(seat, one).decision.to_dict() == expected
        assert seat.policy(one) is seat.policy()  # a task is no option of a policy
    unknown = for_task(seat, Said({"x-ipr-task": "unheard of"}))
    assert unknown.decision.qualities.tobytes() == with_tasks.route(BODY, tau=0.3).qualities.tobytes()
    assert unknown.headers(unknown.decision.model)["x-ipr-task"] == "unknown"
    assert for_task(seat, said["header"]).headers(None)["x-ipr-task"] == "known"
    assert seat.task(Said()) is None


@pytest.mark.parametrize("task", ["", "x" * 201, 7, ["sql"]])
def test_what_is_no_task_is_refused_by_its_place_and_so_is_one_that_may_not_be_set(engine, task):
    seat = Seat(TIERS, {"tau": 0.3}, bundle=engine)
    with pytest.raises(WrongControlError, match=r"^metadata\.ipr_task: expected a text"):
        seat.task(Said(None, (), [("task", "metadata.ipr_task", task)]))
    with pytest.raises(WrongControlError, match="x-ipr-task: may not be set here"):
        Seat(TIERS, {"tau": 0.3}, bundle=engine, controls=("tau",)).task(Said({"x-ipr-task": "sql"}))
