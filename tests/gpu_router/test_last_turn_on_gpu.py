"""Engine(device="cuda") of heads that are given the last turn alone: what is encoded, what is billed. Emulated without a GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from tests.support.conversations import chat
from tests.support.gpu_engines import DEVICE

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter

TURNS = ("prove the sum of it, and why", "what is the story", " ")


def test_the_last_turn_alone_is_encoded_and_all_are_billed(folder, engine, cpu):
    bundle = Bundle.load(folder)
    given = replace(bundle, heads=tuple(replace(head, conversation="last") for head in bundle.heads))
    last = Engine(given, tier="torch", device=DEVICE, batches=(1, 4))
    on_cpu = Engine(given, tier="torch")
    body, policy = {"messages": chat(TURNS), "max_tokens": 300}, last.policy(tau=0.35)
    alone = engine.route(TURNS[1], tau=0.35)
    whole = engine.route({"messages": chat(TURNS)}, tau=0.35)
    for made in (last.route(body, policy), *last.route_many([body, TURNS[1]], policy)):
        assert made.quality == alone.quality
    made = last.route(body, policy)
    assert made.billed_tokens == whole.billed_tokens == on_cpu.route(body, tau=0.35).billed_tokens
    assert made.quality == pytest.approx(on_cpu.route(body, tau=0.35).quality, abs=4e-3)
    assert cpu.route(TURNS[1], tau=0.35).quality == on_cpu.route(body, tau=0.35).quality
