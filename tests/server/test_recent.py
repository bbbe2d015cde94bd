"""The last decisions of a worker: figures alone, a bounded number, read a few at a time, and no bundle kept that has left."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from time import time

import pytest

from ipr_engine import Engine
from ipr_engine.audit.exploration import ExplorationDraw
from ipr_engine.bundle import Bundle
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server import recent
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.recent import KEPT, READ_AT_ONCE, Recent, Ring, Seen
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.server_metrics import SHARED
from ipr_engine.serving import AsyncEngine
from tests.support.path_rows import make_path_bundle
from tests.support.server_process import until

ONE, OTHER = Tenant(name="one"), Tenant(name="other")


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(make_path_bundle(tmp_path / "first", rows=40))


@pytest.fixture
def ring(engine: Engine) -> Recent:
    return Recent(AsyncEngine(engine), (ONE.name, OTHER.name))


def add(ring: Recent, engine: Engine, prompts: list[str], tenant: Tenant = ONE) -> list[Decided]:
    policy = engine.policy(tau=0.3)
    made = []
    for number, prompt in enumerate(prompts):
        question = AskedRequest(prompt, NO_CONTROLS, tenant, "auto")
        asked = AskedPolicy(policy, policy.exclusions, 0)
        decided = Decided.of(f"{tenant.name}{number:08x}", question, asked, engine.route(prompt, policy), 0)
        ring.add(decided, decided.decision.model, decided.decision.cause)
        made.append(decided)
    return made


def test_what_is_kept_is_the_decision_and_its_frontier_and_no_text(ring: Recent, engine: Engine) -> None:
    made = add(ring, engine, ["explain the story", "prove it"])
    found = ring.look(ONE.name)
    assert found.unread == 0
    for told, decided in zip(found.decisions, made, strict=True):
        decision = decided.decision
        assert (told["id"], told["chosen"], told["cause"]) == (decided.id, decision.model, decision.cause)
        assert (told["quality"], told["cost_usd"]) == (decision.quality, decision.cost_usd)
        assert told["steps"] == [list(step) for step in decision.frontier]
    assert "explain" not in str(found.decisions)
    assert ring.look(OTHER.name).decisions == []


def test_a_decision_tells_who_answered_and_figures_of_who_was_chosen(ring: Recent, engine: Engine) -> None:
    (made,) = add(ring, engine, ["explain the story"])
    decision = made.decision
    others = [name for name in decision.ranked if name != decision.model]
    for served in others:
        ring.add(made, served, "fallback")
    ring.add(made, None, "failed")
    told = ring.look(ONE.name).decisions
    for found, served in zip(told, [decision.model, *others, None], strict=True):
        assert (found["chosen"], found["served"]) == (decision.model, served)
        assert (found["quality"], found["cost_usd"]) == (decision.quality, decision.cost_usd)
        assert found["saved_usd"] == made.saved


def test_savings_are_of_who_was_chosen_also_where_chance_drew_another(ring: Recent, engine: Engine) -> None:
    (made,) = add(ring, engine, ["explain the story"])
    asked = ExplorationDraw(0.5, explores=True, place=0.0).of(made.decision)
    drawn = Decided.of("d", made.question, made.asked, made.decision, 0, asked)
    assert drawn.explored
    assert drawn.saved != made.saved
    ring.add(drawn, drawn.model, drawn.cause)
    of_choice, of_drawn = ring.look(ONE.name).decisions
    assert (of_drawn["served"], of_drawn["saved_usd"]) == (drawn.model, of_choice["saved_usd"])


def test_one_look_reads_a_few_and_the_newest_first(ring: Recent, engine: Engine) -> None:
    made = add(ring, engine, ["what is it"] * (READ_AT_ONCE + 5))
    first, second = ring.look(ONE.name), ring.look(ONE.name)
    assert [one["id"] for one in first.decisions] == [one.id for one in made[5:]]
    assert first.unread == 5
    assert [one["id"] for one in second.decisions] == [one.id for one in made]
    assert second.unread == 0


def test_those_that_come_after_the_clock_went_back_are_the_newest(
    ring: Recent, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "READ_AT_ONCE", KEPT)
    before = add(ring, engine, ["what is it"] * KEPT)
    ring.look(ONE.name)
    monkeypatch.setattr(recent, "time", lambda: time() - 3600)
    after = add(ring, engine, ["what is it"] * 3)
    assert [one["id"] for one in ring.look(ONE.name).decisions] == [one.id for one in [*before[3:], *after]]


def test_the_last_ones_are_kept_and_all_are_counted(
    ring: Recent, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "READ_AT_ONCE", KEPT)
    made = add(ring, engine, ["what is it"] * (KEPT + 9))
    for _ in range(2):
        found = ring.look(ONE.name)
        assert [one["id"] for one in found.decisions] == [one.id for one in made[-KEPT:]]
        assert found.unread == 0
    assert sum(ring.routed(ONE.name).values()) == KEPT + 9


def test_a_bundle_that_left_is_held_by_no_decision(ring: Recent, engine: Engine, tmp_path: Path) -> None:
    add(ring, engine, ["what is it"] * 3)
    ring.look(ONE.name)
    add(ring, engine, ["write code"] * 3)
    left: weakref.ref[Bundle] = weakref.ref(engine.bundle)
    engine.swap(make_path_bundle(tmp_path / "second", rows=50))
    add(ring, engine, ["why"])
    found = until(lambda: len(shown := ring.look(ONE.name).decisions) == 7 and shown)  # the others are read in a thread
    assert [one["at"] for one in found] == sorted(one["at"] for one in found)
    assert [len({one["bundle"] for one in some}) for some in (found[:6], found)] == [1, 2]
    until(lambda: gc.collect() is not None and left() is None)


def test_what_swaps_leave_is_bounded_though_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Figures(dict[str, int]):
        """Figures whose end is seen."""

    alive: weakref.WeakSet[Figures] = weakref.WeakSet()

    def figures(seen: Seen) -> Figures:
        found = Figures(number=seen.number)
        alive.add(found)
        return found

    monkeypatch.setattr(Figures, "__hash__", object.__hash__)
    monkeypatch.setattr(recent, "_figures", figures)
    left = Ring()
    for number in range(5 * KEPT):
        left.read(Seen(None, "", 0.0, "", None, None, number))  # type: ignore[arg-type]
    assert len(alive) < 2 * KEPT
    assert [one["number"] for one in left.look().decisions] == list(range(4 * KEPT, 5 * KEPT))


def test_what_is_not_read_in_time_is_forgotten_the_oldest_first(
    ring: Recent, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [0.0, 0.0, 0.1, recent.LEAVES_S - 0.1, recent.LEAVES_S - 0.1, recent.LEAVES_S]
    monkeypatch.setattr(recent, "monotonic", lambda: times.pop(0) if len(times) > 1 else times[0])
    monkeypatch.setattr(recent, "PAUSE_S", 0.0)
    made = [*add(ring, engine, ["what is it"] * 3), *add(ring, engine, ["why"] * 2, OTHER)]
    engine.swap(make_path_bundle(tmp_path / "second", rows=50))
    (last,) = add(ring, engine, ["why"])
    until(lambda: len(times) == 1)
    assert [one["id"] for one in ring.look(OTHER.name).decisions] == [one.id for one in made[3:]]
    assert [one["id"] for one in ring.look(ONE.name).decisions] == [last.id]


def test_counts_are_summed_over_workers(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SHARED, str(tmp_path))
    ring = Recent(AsyncEngine(engine), (ONE.name, OTHER.name))
    add(ring, engine, ["what is it"] * 3)
    ring.share()
    (own,) = tmp_path.glob("routed-*.json")
    own.rename(tmp_path / "routed-1.json")  # as another worker left it
    add(ring, engine, ["what is it"])
    assert sum(ring.routed(ONE.name).values()) == 3 + 4
    assert not ring.routed(OTHER.name)
