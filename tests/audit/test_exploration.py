"""Who is asked by chance: as often as the record says, of those that policy and request allow, beside a decision that replays."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit import Explorer
from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import canonical, crc32
from ipr_engine.audit.replay import replay
from ipr_engine.errors import RecordError
from ipr_engine.serving import BatchingEngine

PROMPT = "explain to the python student why this code is slow and how to write a better story"
SHARE = 0.3
ALWAYS = ExplorationDraw(SHARE, explores=True, place=0.999)


def explored(engine, prompt=PROMPT, draw=ALWAYS, **options):
    lines = []
    decision = engine.recorder(lines.append).route(prompt, draw=draw, **options)
    return decision, Record.from_line(lines[0]), lines[0]


def test_candidates_are_asked_as_often_as_their_propensities_say(engine):
    decision, explorer = engine.route(PROMPT, tau=0.3), Explorer(SHARE, Random(7).random)
    made = [explorer.draw().of(decision) for _ in range(20_000)]
    asked, chance = Counter(one.model for one in made), {one.model: one.propensity for one in made}
    assert len(chance) == len(made[0].among) == 5
    assert sum(chance.values()) == pytest.approx(1.0)
    assert chance[decision.model] == pytest.approx(0.7 + 0.3 / 5)
    for name, propensity in chance.items():  # six standard errors
        assert abs(asked[name] / 20_000 - propensity) < 6 * (propensity * (1 - propensity) / 20_000) ** 0.5


def test_the_same_seed_draws_the_same(engine):
    one, other = (Explorer(SHARE, Random(3).random) for _ in range(2))
    assert [one.draw() for _ in range(50)] == [other.draw() for _ in range(50)]
    assert len({Explorer(SHARE).draw().place for _ in range(50)}) == 50


def test_a_record_tells_who_was_asked_and_replays_to_the_bit(engine):
    lines, explorer = [], Explorer(SHARE, Random(1).random)
    recorder = engine.recorder(lines.append)
    for number in range(40):
        draw = explorer.draw()
        decision = recorder.route(PROMPT + f" {number}", tau=0.3, draw=draw)
        record = Record.from_line(lines[-1])
        assert record.exploration == draw.of(decision)
        assert record.outcome.model == decision.model
        assert record.to_line() == lines[-1]
    assert {one.differences for one in replay(lines, engine)} == {()}
    assert len({Record.from_line(line).exploration.model for line in lines}) > 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_serving_recorder_writes_the_draw_of_each_request(engine, cached):
    lines, explorer, asked = [], Explorer(SHARE, Random(2).random), []
    with BatchingEngine(engine, cache_entries=16 if cached else 0) as serving, serving.recorder(lines.append) as to:
        for _ in range(30):  # one prompt: a cached decision has a draw of its own, too
            draw = explorer.draw()
            asked.append(draw.of(to.route(PROMPT, tau=0.3, draw=draw)))
        plain = to.route(PROMPT, tau=0.3)
    records = [Record.from_line(line) for line in lines]
    assert [record.exploration for record in records] == [*asked, None]
    assert len({one.model for one in asked}) > 1
    assert records[-1].outcome.model == plain.model


def test_only_those_are_drawn_that_policy_and_request_allow(engine):
    names = engine.bundle.names
    left = engine.route(PROMPT, tau=0.3, exclude=[names[0]])
    made = [Explorer(0.9, Random(seed).random).draw().of(left) for seed in range(200)]
    assert {one.model for one in made} == set(names[1:])
    too_long = engine.route(PROMPT, tau=0.3, billed_tokens=50_000)  # over the windows of two candidates
    assert {names[m] for m in ALWAYS.of(too_long).among} == set(names) - set(too_long.excluded)
    assert too_long.excluded
    pinned = ALWAYS.of(engine.route(PROMPT, tau=0.3, allowed=[names[2]]))
    assert (pinned.model, pinned.propensity) == (names[2], 1.0)


def test_nobody_is_drawn_where_nothing_was_decided_or_a_fallback_answered(engine):
    failed = engine.route_many([PROMPT], tau=0.3, tokens_out=float("inf"), on_error="status")[0]
    assert ALWAYS.of(failed) is None
    lines = []
    with (
        BatchingEngine(engine, fallback=engine.bundle.names[0], limits={"inline_chars": 0}) as serving,
        serving.recorder(lines.append) as to,
    ):
        late = to.route(PROMPT, tau=0.3, budget_us=1e-3, draw=ALWAYS)
    assert late.degraded == "candidate"
    assert ALWAYS.of(late) is None
    assert Record.from_line(lines[0]).exploration is None


def test_a_record_without_a_draw_is_the_line_of_before(engine):
    lines = []
    engine.recorder(lines.append).route(PROMPT, tau=0.3)
    assert "exploration" not in json.loads(lines[0])
    assert Record.from_line(lines[0]).exploration is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "gpt-5"),
        ("share", 0.0),
        ("share", 1),
        ("propensity", 0.5),
        ("propensity", "0.06"),
        ("propensity", 1.0000000000001),
        ("among", [0, 1]),
        ("among", [0, 0, 1, 2, 3, 4]),
        ("among", [9]),
        ("more", 1),
    ],
)
def test_an_exploration_that_no_recorder_writes_is_refused(engine, name, value):
    document = json.loads(explored(engine, tau=0.3)[2])
    document.pop("crc32")
    document["exploration"][name] = value
    document["crc32"] = crc32(canonical(document))
    with pytest.raises(RecordError, match="exploration"):
        Record.from_line(json.dumps(document))


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan"), "0.1", True])
def test_a_share_out_of_range_is_told(share):
    with pytest.raises(InvalidInputError, match="share: expected"):
        Explorer(share)


def test_the_decision_is_the_policys_own(engine: Engine) -> None:
    plain = engine.route(PROMPT, tau=0.3)
    decision, record, _ = explored(engine, tau=0.3)
    assert decision.to_dict() == plain.to_dict()
    assert record.exploration is not None
    assert record.exploration.model != decision.model
