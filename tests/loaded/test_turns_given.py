"""What of several turns a bundle's heads are given holds on every way from a conversation to a decision, and moves no bill."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, parse_request
from ipr_engine.audit.record import Record
from ipr_engine.bundle import Bundle
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.decision_cache import DecisionCache
from tests.support.bundles import bundle_parts
from tests.support.conversations import chat, given_turns
from tests.support.library_tokenizers import add_token
from tests.support.surface_bundles import surface_parts
from tests.support.task_bundles import task_parts
from tests.support.tokenized_bundles import limited
from tests.support.two_tier_bundles import join, make_tiers

TURNS = ("prove the sum of it, and why", "write a story of python code", "what is it", " ")
SHORT = ("what is the story", "yes")
CONVERSATIONS = ("all", "last", "recency")


def engines_of(folder, parts):
    return {name: Engine.load(given_turns(folder / name, parts, name)) for name in CONVERSATIONS}


@pytest.fixture(scope="module", params=["table", "surface", "library"])
def engines(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    parts = (surface_parts if request.param == "surface" else bundle_parts)(folder / "sources", models=4)
    if request.param == "library":
        add_token(folder / "sources" / "encoder" / "tokenizer.json")
    return engines_of(folder, parts)


def test_what_is_encoded_differs_and_what_is_billed_does_not(engines):
    made = {name: engine.encode(chat(TURNS)) for name, engine in engines.items()}
    assert len({one.x.tobytes() for one in made.values()}) == 3
    assert len({(one.billed_tokens.tobytes(), one.terms.tobytes()) for one in made.values()}) == 1
    assert made["last"].x.tobytes() == engines["all"].encode(TURNS[2]).x.tobytes()
    dim = 16
    rows = engines["all"].encode(list(TURNS[:3])).x[::-1, :dim].astype(np.float64)
    expected = (0.5 ** np.arange(3)) @ rows
    np.testing.assert_allclose(made["recency"].x[0, :dim], expected / np.linalg.norm(expected), atol=4e-7)
    for single in ("why", chat(TURNS[:1]), {"prompt": TURNS[0]}):
        assert len({engine.encode(single).x.tobytes() for engine in engines.values()}) == 1


def test_only_turns_of_the_user_are_told_apart(engines):
    tool = {"role": "user", "content": [{"type": "tool_result", "content": "42"}]}
    image = {"role": "user", "content": [{"type": "image_url"}]}
    for engine in engines.values():
        expected = engine.encode(chat(TURNS[:2])).x.tobytes()
        for more in ([tool], [image], [{"role": "assistant", "content": "it is so"}, tool]):
            body = [*chat(TURNS[:2]), *more]
            assert engine.encode(body, billed_tokens=90).x.tobytes() == expected
    parted = [{"role": "user", "content": [{"type": "text", "text": text} for text in TURNS[:2]]}]
    one = [{"role": "user", "content": "\n\n".join(TURNS[:2])}]
    for engine in engines.values():
        assert engine.encode(parted).x.tobytes() == engine.encode(one).x.tobytes()


def test_every_way_to_a_decision_reads_the_same_of_a_conversation(engines):
    for conversation, engine in engines.items():
        body = {"messages": chat(TURNS), "max_tokens": 300}
        expected = engine.decide(engine.encode(body), tau=0.3)[0].to_dict()
        recorder = engine.recorder(lambda line: None)
        with BatchingEngine(engine, cache_entries=8) as serving:
            ways = [
                engine.route(body, tau=0.3),
                engine.route(parse_request(body), tau=0.3),
                engine.route_many([body, "why"], tau=0.3)[0],
                recorder.route(body, tau=0.3),
                serving.route(body, tau=0.3),
                serving.route(body, tau=0.3),
            ]
        for way in ways:
            told = way.to_dict()
            assert {key: told[key] for key in ("model", "quality", "cost_usd")} == {
                key: expected[key] for key in ("model", "quality", "cost_usd")
            }, conversation
            assert way.billed_tokens == engines["all"].route(body, tau=0.3).billed_tokens


def test_own_tokens_and_windows_are_those_of_all_turns(tmp_path):
    bundle = limited(tmp_path)
    engine = Engine(bundle)
    body = {"messages": chat(TURNS), "max_tokens": 30}
    for conversation in ("last", "recency"):
        heads = tuple(replace(head, conversation=conversation) for head in bundle.heads)
        other = Engine(replace(bundle, heads=heads))
        made, expected = other.route(body, tau=0.3), engine.route(body, tau=0.3)
        assert made.own_tokens.tobytes() == expected.own_tokens.tobytes()
        assert made.billed_tokens == expected.billed_tokens


def test_a_task_is_marked_beside_the_weighed_turns(tmp_path):
    engine = Engine.load(given_turns(tmp_path, task_parts(tmp_path / "sources"), "recency"))
    task = sorted(engine.bundle.tasks)[0]
    column = engine.loaded.task_columns[task]
    body = chat(TURNS)
    plain, marked = engine.encode(body).x[0], engine.encode(body, task=task).x[0]
    assert (plain[column], marked[column]) == (0, 1)
    assert np.delete(plain, column).tobytes() == np.delete(marked, column).tobytes()
    assert (
        engine.route(body, tau=0.3, task=task).quality
        == engine.decide(engine.encode(body, task=task), tau=0.3)[0].quality
    )


def test_each_tier_reads_its_own_of_a_conversation(tmp_path):
    first, second = make_tiers(tmp_path)
    heads = tuple(replace(head, conversation="recency") for head in first.heads)
    of_last = tuple(replace(head, conversation="last") for head in second.heads)
    joined = join(tmp_path, (replace(first, heads=heads), replace(second, heads=of_last)), gap=10.0)
    engine, alone = Engine(joined), Engine(second)
    made = engine.route(chat(TURNS), tau=0.3)
    assert made.escalated
    kept = engine.encode(chat(TURNS), second=True)
    assert kept.x.tobytes() == alone.encode(TURNS[2]).x.tobytes()
    assert made.quality == alone.route(TURNS[2], tau=0.3).quality
    assert engine.route_many([chat(TURNS)], tau=0.3)[0].quality == made.quality


def test_a_swap_may_change_what_heads_are_given(engines):
    before, after = engines["all"].bundle, engines["last"].bundle
    engine = Engine(before)
    kept = engine.encode(chat(TURNS))
    engine.swap(after)
    assert engine.encoder is not None
    assert engine.encode(chat(TURNS)).x.tobytes() == engines["last"].encode(chat(TURNS)).x.tobytes()
    assert engine.decide(kept, tau=0.3)[0].status == "ok"  # one encoder: what was kept can be decided on


def test_a_record_of_a_brief_last_turn_holds_no_figure(tmp_path):
    """Few words can be read out of the figures that are made of them alone, or that other turns' figures are taken from."""
    parts, words = bundle_parts(tmp_path / "sources"), " ".join(f"w{n}" for n in range(60))
    for conversation, engine in engines_of(tmp_path, parts).items():
        lines = []
        with engine.recorder(lines.append) as recorder:
            recorder.route(chat((words, "yes")), tau=0.3)
            recorder.route(chat((words, "yes", " ")), tau=0.3)
            recorder.route(chat((words, words + " more")), tau=0.3)
            recorder.route(words, tau=0.3)
        withheld = [Record.from_line(line).withheld for line in lines]
        assert withheld == [True, True, False, False], conversation


def test_a_newest_turn_is_found_from_the_figures_before_it():
    """Why its record is brief: two records of one conversation differ by that turn alone, and one word is found by trying words."""
    words = ["kidney", "divorce", "london", "tensor", "poem", "lake", "tree", "bird"]
    engine = Engine.load()
    bias = np.asarray(engine.bundle.quality_heads.tensors["bias"], np.float64)

    def logits(prompts):
        quality = engine.route_many(prompts, tau=0.2).qualities.astype(np.float64)
        return np.log(quality / (1 - quality)) - bias

    before = "Could you please explain to me how the water cycle works in nature, and why rain falls over mountains?"
    (first,), tried = logits([before]), logits(words)
    found = []
    for then in logits([chat((before, word)) for word in words]):
        left = [np.linalg.lstsq(np.stack([first, own], 1), then, rcond=None)[1][0] for own in tried]
        found.append(words[int(np.argmin(left))])
    assert sum(np.array(found) == words) >= 6


def test_a_kept_decision_is_not_that_of_other_turns(engines):
    cache, policy = DecisionCache(8), engines["last"].policy(tau=0.3)
    joined = "\n\n".join(SHORT)
    assert cache.key(parse_request(chat(SHORT)[1:]), policy) != cache.key(
        parse_request([{"role": "user", "content": joined}, {"role": "assistant", "content": "it is so"}]), policy
    )
    turned = [
        parse_request([{"role": "user", "content": turn} for turn in turns])
        for turns in (("a", "b\n\nc"), ("a\n\nb", "c"))
    ]
    assert len({cache.key(one, policy) for one in (*turned, parse_request("a\n\nb\n\nc"))}) == 3


def test_a_conversation_without_a_token_is_refused_as_before(engines):
    for engine in engines.values():
        with pytest.raises(ValueError, match="without one token"):
            engine.route(chat((" ", "\n")), tau=0.3)


def test_an_embedding_is_read_once_a_turn_in_one_call(engines, monkeypatch):
    engine = engines["recency"]
    if not engine.loaded.routes_text:
        return
    monkeypatch.setattr(type(engine.loaded), "walk", None)
    assert engine.route({"messages": chat(TURNS)}, tau=0.3).status == "ok"


def test_bundles_are_read_from_disk_as_they_serve(engines):
    for name, engine in engines.items():
        assert Bundle.load(engine.bundle.path).quality_heads.conversation == name
        assert engine.loaded.conversation == name
