"""A collection against a server that charges: what is asked, what is noted, what is paid."""

from __future__ import annotations

import json
import logging
import sqlite3
from dataclasses import replace

import pytest

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.ledger import LEDGER, LedgerError
from ipr_engine.collection.provider import Provider, ProviderLimits
from ipr_engine.collection.question import LoggedAnswer, Question
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from tests.support.collections import FAST, candidate, plan_for, questions
from tests.support.paid_server import answer_of


def test_every_candidate_answers_every_prompt_and_the_tables_load(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), candidate("slow-0.01"), budget_usd=1)
    made = collect(plan, questions(30))
    assert made.done.answered == 60
    assert made.done.failed == 0
    loaded = load_outcomes(plan.out_folder)
    assert loaded.models == ("plain", "slow-0.01")
    assert loaded.output_tokens.tolist() == [[6.0, 6.0]] * 30
    assert loaded.cost_usd.sum() == pytest.approx(made.spent_usd, rel=1e-6)
    written = json.loads((plan.out_folder / "candidates.json").read_text())
    assert [one["name"] for one in written["candidates"]] == ["plain", "slow-0.01"]
    assert "max_tokens" not in written["candidates"][0]


def test_the_same_plan_again_sends_nothing(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    first = collect(plan, questions(12, "Again {}?"))
    before = server.calls()
    second = collect(plan, questions(12, "Again {}?"))
    assert second.done.answered == 0
    assert server.calls() == before
    assert second.spent_usd == first.spent_usd
    assert second.candidates["plain"].answers == 12


def test_more_prompts_pay_for_the_new_ones_alone(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    collect(plan, questions(5, "Grow {}?"))
    assert collect(plan, questions(9, "Grow {}?")).done.answered == 4


def test_a_dry_run_sends_nothing_and_its_most_is_not_exceeded(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    before = sum(server.calls().values())
    dry = collect(plan, questions(7, "Dry {}?"), CollectOptions(dry_run=True))
    assert sum(server.calls().values()) == before
    assert dry.estimates["plain"].calls == 7
    assert not (plan.out_folder / "outcomes.jsonl").exists()
    assert 0 < collect(plan, questions(7, "Dry {}?")).spent_usd <= dry.estimates["plain"].most_usd


def test_after_some_answers_the_expected_cost_is_near_what_they_cost(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    collect(plan, questions(20, "Some {}?"))
    dry = collect(plan, questions(40, "Some {}?"), CollectOptions(dry_run=True))
    paid = collect(plan, questions(40, "Some {}?")).spent_usd - dry.spent_usd
    assert dry.estimates["plain"].calls == 20
    assert paid < dry.estimates["plain"].expected_usd < dry.estimates["plain"].most_usd


def test_the_cap_is_never_exceeded_and_what_fits_is_bought(tmp_path, server):
    dear = candidate("plain", input_usd_per_1m=1000, output_usd_per_1m=2000)
    plan = plan_for(tmp_path, server.base_url, dear, budget_usd=0.9, providers=fast(server, concurrency=32))
    made = collect(plan, questions(200, "Cap {}?"))
    assert made.done.budget_spent
    assert 0.2 < made.spent_usd <= 0.9
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        assert ledger.execute("SELECT sum(charged_nanousd) FROM attempt").fetchone()[0] <= 900_000_000
    again = collect(replace(plan, budget_usd=1.4), questions(200, "Cap {}?"))
    assert made.spent_usd < again.spent_usd <= 1.4


def test_a_candidate_s_own_cap_stops_it_alone(tmp_path, server):
    own = candidate("capped", model="plain", budget_usd=0.006, input_usd_per_1m=10)
    plan = plan_for(tmp_path, server.base_url, own, candidate("slow-0"))
    made = collect(plan, questions(40, "Own {}?"))
    assert made.done.stopped == {"capped": "its budget_usd is spent"}
    assert made.candidates["slow-0"].answers == 40
    assert made.candidates["capped"].answers < 40
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        spent = dict(ledger.execute("SELECT candidate, nanousd FROM spent").fetchall())
    assert spent["capped"] <= 6_000_000


def test_a_server_that_reports_more_than_was_possible_stops_the_run(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("greedy-1000"), providers=fast(server, concurrency=1))
    made = collect(plan, questions(20, "Greedy {}?"))
    assert "greedy-1000" in made.done.overrun
    assert made.done.answered == 1
    assert made.candidates["greedy-1000"].answers == 1


@pytest.mark.parametrize(
    ("model", "reason", "billed"),
    [
        ("html", "html", True),
        ("half", "not_json", True),
        ("nan", "not_a_number", True),
        ("failing", "error_in_200", True),
        ("bare", "no_choices", True),
        ("halved", "not_unicode", True),
        ("wrong", "http_400 invalid_request", False),
    ],
)
def test_a_reply_that_is_none_fails_with_its_reason_and_the_others_go_on(tmp_path, server, model, reason, billed):
    limits = replace(FAST, retries=0)
    plan = plan_for(
        tmp_path,
        server.base_url,
        candidate(model),
        candidate("plain"),
        providers={"paid": Provider(base_url=server.base_url, limits=limits)},
    )
    made = collect(plan, questions(5, "Wrong {}?"))
    assert made.done.reasons == {(model, reason): 5}
    assert made.candidates["plain"].answers == 5
    assert (made.unbilled_usd > 0) == billed


def test_a_candidate_whose_first_calls_all_fail_for_good_is_asked_no_more(tmp_path, server):
    plan = plan_for(
        tmp_path, server.base_url, candidate("wrong"), candidate("plain"), providers=fast(server, concurrency=2)
    )
    made = collect(plan, questions(60, "Stop {}?"))
    assert made.done.failed < 20
    assert "wrong" in made.done.stopped
    assert made.candidates["plain"].answers == 60


@pytest.mark.parametrize(
    ("model", "reason"), [("locked", "http_401 invalid_request"), ("broke", "http_429 insufficient_quota")]
)
def test_a_key_or_a_quota_that_is_refused_stops_its_candidate_at_once(tmp_path, server, model, reason):
    plan = plan_for(
        tmp_path, server.base_url, candidate(model), candidate("plain"), providers=fast(server, concurrency=1)
    )
    made = collect(plan, questions(9, "Locked {}?"))
    assert made.done.failed == 1
    assert made.done.stopped[model].startswith(reason)
    assert made.candidates["plain"].answers == 9


def test_a_rate_limit_is_waited_out(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("limited-6"))
    made = collect(plan, questions(10, "Limited {}?"))
    assert made.done.answered == 10
    assert made.done.retried >= 6


def test_a_wait_longer_than_the_plan_s_is_a_failed_call(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("limited-999"), providers=fast(server, most_wait_s=0.1))
    made = collect(plan, questions(3, "Long {}?"))
    assert made.done.failed == 3
    assert set(made.done.reasons) == {("limited-999", "http_429 rate_limit_exceeded")}
    assert made.spent_usd == 0


def test_what_fails_once_is_asked_again(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("flaky"))
    assert collect(plan, questions(12, "Flaky {}?")).done.answered == 12


def test_a_time_out_is_charged_at_its_most_and_noted(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("slow-5"), providers=fast(server, timeout_s=0.2, retries=0))
    made = collect(plan, questions(3, "Late {}?"))
    assert made.done.reasons == {("slow-5", "timeout"): 3}
    assert made.spent_usd == made.unbilled_usd > 0


def test_a_connection_that_is_closed_or_never_stood_is_told(tmp_path, server):
    plan = plan_for(tmp_path / "a", server.base_url, candidate("closing"), providers=fast(server, retries=0))
    assert set(collect(plan, questions(2, "Closed {}?")).done.reasons) == {("closing", "connection_lost")}
    nobody = {"paid": Provider(base_url="http://127.0.0.1:9/v1", limits=replace(FAST, retries=0))}
    plan = plan_for(tmp_path / "b", server.base_url, candidate("plain"), providers=nobody)
    made = collect(plan, questions(2, "Nobody {}?"))
    assert set(made.done.reasons) == {("plain", "no_connection")}
    assert made.spent_usd == 0


def test_cut_and_refused_answers_are_noted_as_what_they_are(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("cut"), candidate("refusing"), candidate("filtered"))
    made = collect(plan, questions(4, "Cut {}?"))
    assert made.candidates["cut"].truncated == 4
    assert made.candidates["refusing"].refused == made.candidates["filtered"].refused == 4
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        kinds = set(ledger.execute("SELECT candidate, finish_reason FROM answer").fetchall())
    assert kinds == {("cut", "length"), ("refusing", "content_filter"), ("filtered", "content_filter")}


def test_an_answer_without_usage_is_kept_and_charged_at_its_most(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, candidate("silent"))
    made = collect(plan, questions(4, "Silent {}?"))
    assert made.candidates["silent"].answers == 4
    assert made.candidates["silent"].mean_cost_usd is None
    assert made.spent_usd > 0


def test_samples_are_calls_of_their_own_and_one_outcome(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url, samples=3)
    made = collect(plan, questions(4, "Sample {}?"))
    assert made.done.answered == 12
    assert load_outcomes(plan.out_folder).cost_usd.shape == (4, 1)


def test_an_answer_of_a_log_is_not_paid_again(tmp_path, server):
    asked = questions(3, "Logged {}?")
    asked[0] = replace(asked[0], answers={"plain": LoggedAnswer(text="2", output_tokens=1, cost_usd=0.5)})
    plan = plan_for(tmp_path, server.base_url)
    made = collect(plan, asked)
    assert made.done.answered == 2
    assert made.taken.answers == 1
    assert made.spent_usd < 0.01
    assert load_outcomes(plan.out_folder).cost_usd[0, 0] == 0.5


def test_a_label_of_its_owner_is_the_outcome(tmp_path, server):
    asked = questions(3, "Label {}?")
    asked[1] = replace(asked[1], labels={"plain": 0.25})
    plan = plan_for(tmp_path, server.base_url)
    made = collect(plan, asked)
    assert load_outcomes(plan.out_folder).quality[1, 0] == 0.25
    assert made.candidates["plain"].labels == 1


def test_a_prompt_that_needs_tools_goes_to_candidates_that_have_them(tmp_path, server):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {"messages": [{"role": "user", "content": "Look."}], "tools": [tool]}
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), candidate("slow-0", features=["tools"]))
    made = collect(plan, [Question(prompt_id="t", prompt="Look.", body=body)])
    assert made.candidates["plain"].answers == 0
    assert made.candidates["slow-0"].answers == 1


def test_parts_that_cannot_be_counted_need_their_most_tokens(tmp_path, server):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "What?"}, image]}]}
    asked = [Question(prompt_id="i", prompt="What?", body=body)]
    seeing = candidate("plain", features=["vision"])
    with pytest.raises(InvalidInputError, match="part_tokens: is missing; prompt 'i' holds image_url"):
        collect(plan_for(tmp_path, server.base_url, seeing), asked)
    assert collect(plan_for(tmp_path, server.base_url, seeing, part_tokens=2000), asked).done.answered == 1


def test_a_price_of_an_image_is_paid_for_images_alone(tmp_path, server):
    said = {"type": "text", "text": "What?"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    asked = [
        Question(prompt_id=name, prompt="What?", body={"messages": [{"role": "user", "content": parts}]})
        for name, parts in (("both", [said, image, sound]), ("sound", [said, sound]))
    ]
    other = {"messages": [{"role": "user", "content": [{"type": "text", "text": "And this?"}, image, sound]}]}
    answer = LoggedAnswer(text="x", input_tokens=1, output_tokens=1)
    asked.append(Question(prompt_id="logged", prompt="And this?", body=other, answers={"plain": answer}))
    able = candidate("plain", features=["vision", "audio"], input_usd_per_1m=0, output_usd_per_1m=0, per_image_usd=0.01)
    plan = plan_for(tmp_path, server.base_url, able, part_tokens=2000)
    assert collect(plan, asked).spent_usd == pytest.approx(0.01)
    assert load_outcomes(plan.out_folder).cost_usd[:, 0].tolist() == pytest.approx([0.01, 0.01, 0.0])


@pytest.mark.parametrize("field", ["n", "stream", "max_tokens", "model"])
def test_a_prompt_that_sets_what_each_call_sets_is_refused(tmp_path, server, field):
    asked = [replace(one, body={**one.body, field: 50}) for one in questions(1)]
    with pytest.raises(InvalidInputError, match=f"prompt 'q00000': body.{field}: is set with each call"):
        collect(plan_for(tmp_path, server.base_url), asked)


def test_who_waits_for_a_turn_is_let_go_once_the_money_is_spent(tmp_path, server):
    slow = fast(server, requests_per_minute=0.5)  # the next turn comes in two minutes
    plan = plan_for(tmp_path, server.base_url, candidate("plain"), budget_usd=0.0, providers=slow)
    made = collect(plan, questions(20, "Turn {}?"))
    assert made.done.budget_spent
    assert made.done.answered == 0


def test_an_answer_that_cannot_be_noted_ends_the_run(tmp_path, server, monkeypatch):
    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("ipr_engine.collection.asking.note_answer", full)
    plan = plan_for(tmp_path, server.base_url)
    with pytest.raises(LedgerError, match="cannot be written: database or disk is full"):
        collect(plan, questions(1, "Noted {}?"))
    monkeypatch.undo()
    again = collect(plan, questions(1, "Noted {}?"))
    assert again.done.answered == 1
    assert again.unbilled_usd > 0


def test_two_processes_do_not_write_one_ledger(tmp_path, server):
    from ipr_engine.collection.ledger import Ledger

    plan = plan_for(tmp_path, server.base_url)
    collect(plan, questions(1))
    with (
        Ledger(plan.out_folder / LEDGER),
        pytest.raises(InvalidInputError, match="another process writes this ledger"),
    ):
        collect(plan, questions(1))


def test_no_key_and_no_prompt_is_in_a_log_and_no_key_in_the_ledger(tmp_path, server, monkeypatch, caplog):
    monkeypatch.setenv("PAID_API_KEY", "sk-verysecret12345")
    caplog.set_level(logging.DEBUG)
    keyed = {"paid": Provider(base_url=server.base_url, api_key_env="PAID_API_KEY", limits=FAST)}
    plan = plan_for(
        tmp_path, server.base_url, candidate("wrong"), candidate("locked"), candidate("plain"), providers=keyed
    )
    made = collect(plan, questions(3, "Confidential {}?"))
    assert made.done.failed
    said = caplog.text + repr(made) + repr(plan)
    assert "Confidential" not in said
    assert "verysecret" not in said
    for file in plan.out_folder.iterdir():
        assert b"verysecret" not in file.read_bytes()


def test_a_server_without_a_key_gets_none(tmp_path, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-else")
    plan = plan_for(tmp_path, server.base_url, candidate("locked"))
    made = collect(plan, questions(1, "Nokey {}?"))
    assert made.done.failed == 1  # 401; what the server was sent is in test_callers


def test_the_answers_are_those_that_the_server_gave(tmp_path, server):
    plan = plan_for(tmp_path, server.base_url)
    asked = questions(4, "Text {}?")
    collect(plan, asked)
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        answers = {text for (text,) in ledger.execute("SELECT text FROM answer")}
    assert answers == {answer_of(one.prompt) for one in asked}


def fast(server, **limits):
    return {"paid": Provider(base_url=server.base_url, limits=replace(FAST, **limits))}


def test_limits_are_checked():
    with pytest.raises(InvalidInputError, match="concurrency"):
        ProviderLimits(concurrency=0)
