"""One bad prompt of a list: the other rows stand, and the bad one says what is wrong, never with its text."""

import json
import math
import traceback
from types import SimpleNamespace

import numpy as np
import pytest

from ipr_engine import Decision, Engine, InvalidInputError, RowError
from ipr_engine.audit.record import Record, RecordError
from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.data.embeddings import EmbeddingCache
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.request.route_request import RouteRequest
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.decisions import bits
from tests.support.two_tier_bundles import join, make_tiers

SECRET = "my secret prompt"
BAD = ["", "\u200b", "\ud83d", 3, None, [], [{"role": "user"}], [{"role": "user", "content": [{"type": "hologram"}]}]]
IMAGE = [{"role": "user", "content": [{"type": "text", "text": SECRET}, {"type": "image_url"}]}]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine.load(make_bundle(tmp_path_factory.mktemp("rows"), models=4, dim=16))


@pytest.fixture(scope="module")
def by_library(tmp_path_factory):
    """The static tier on a tokenizer.json that only the tokenizers library reads."""
    folder = tmp_path_factory.mktemp("library")
    parts = bundle_parts(folder)
    file = folder / "encoder" / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": None}))
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)))


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_the_other_rows_stand(engine, bad):
    policy = engine.policy(tau=0.4)
    prompts = ["what is the story", bad, [{"role": "user", "content": "why"}], bad, "how to code"]
    decisions = engine.route_many(prompts, policy, on_error="status")
    assert [row.status for row in decisions] == ["ok", "invalid_input", "ok", "invalid_input", "ok"]
    for row in (0, 2, 4):
        assert bits(decisions[row]) == bits(engine.route(prompts[row], policy))
        assert decisions[row].reason is None
    for row in (1, 3):
        failed = decisions[row]
        assert (failed.model, failed.index, failed.cause, failed.billed_tokens) == (None, -1, "failed", 0)
        assert math.isnan(failed.quality)
        assert failed.reason.startswith(f"prompts[{row}]")
        assert failed.to_dict()["reason"] == failed.reason
        assert failed.ranked == failed.frontier == ()
    assert decisions.errors.keys() == {1, 3}
    assert json.dumps(decisions.to_dicts(), allow_nan=False)
    with pytest.raises(InvalidInputError, match=r"prompts\[1\]"):
        engine.route_many(prompts, policy)


def test_all_rows_may_be_bad_and_one_prompt_alone_too(engine):
    decisions = engine.route_many(["", ""], tau=0.4, on_error="status")
    assert decisions.models == [None, None]
    alone = engine.route_many([""], tau=0.4, on_error="status")[0]
    assert isinstance(alone, Decision)
    assert alone.status == "invalid_input"
    assert "without one token" in repr(alone)
    with pytest.raises(InvalidInputError, match="without one token"):
        engine.explain("", tau=0.4)
    with pytest.raises(InvalidInputError, match="expected a list of prompts, got int"):
        engine.route_many(7, tau=0.4, on_error="status")  # no prompt, and no list of them


def test_what_is_given_by_row_stays_with_its_row(engine):
    prompts = ["why", "", "how to code"]
    given = {"billed_tokens": [5, 6, 7], "tokens_out": [[10] * 4, [20] * 4, [30] * 4], "extra_usd": [[0.1] * 4] * 3}
    decisions = engine.route_many(prompts, tau=0.4, on_error="status", **given)
    for row in (0, 2):
        own = {name: values[row] if name == "billed_tokens" else [values[row]] for name, values in given.items()}
        assert bits(decisions[row]) == bits(engine.route(prompts[row], tau=0.4, **own))
    for name in given:
        with pytest.raises(InvalidInputError, match=name):  # an argument is no row's fault
            engine.route_many(prompts, tau=0.4, on_error="status", **{name: "x"})


def test_a_bill_may_be_left_to_be_counted_in_a_row(engine):
    made = engine.route_many(["why", IMAGE, ""], tau=0.4, billed_tokens=[None, 700, None], on_error="status")
    assert [row.status for row in made] == ["ok", "ok", "invalid_input"]
    assert made.billed_tokens.tolist() == [1, 700, 0]
    assert engine.encode(["why", "how"], billed_tokens=(9, None)).billed_tokens.tolist() == [9, 1]
    for bills in ([None], [None, -1, 1], [None, "x", 1], [None, 1.5, 1]):
        with pytest.raises(InvalidInputError, match="billed_tokens"):
            engine.route_many(["why", IMAGE, ""], tau=0.4, billed_tokens=bills, on_error="status")


def test_an_image_without_a_bill_is_a_bad_row(engine):
    decisions = engine.route_many(["why", IMAGE], tau=0.4, on_error="status")
    assert [row.status for row in decisions] == ["ok", "invalid_input"]
    assert "pass billed_tokens=" in decisions[1].reason
    assert SECRET not in decisions[1].reason


def test_encoding_goes_on_and_deciding_tells(engine):
    encoded = engine.encode(["why", "", "how to code"], on_error="status")
    assert encoded.errors.keys() == {1}
    assert np.isnan(encoded.x).all(axis=1).tolist() == [False, True, False]
    assert encoded.billed_tokens[1] == 0
    made = engine.decide(encoded, tau=0.4, on_error="status")
    assert [row.status for row in made] == ["ok", "invalid_input", "ok"]
    assert bits(made[2]) == bits(engine.route("how to code", tau=0.4))
    with pytest.raises(RowError) as caught:
        engine.decide(encoded, tau=0.4)
    assert (caught.value.rows, caught.value.reasons) == ((1,), ("invalid_input",))
    part = encoded[[1, 2]]
    assert part.errors.keys() == {0}
    assert not encoded[[0, 2]].errors
    with pytest.raises(InvalidInputError, match=r"prompts\[1\]"):
        engine.encode(["why", ""])
    with pytest.raises(InvalidInputError, match="on_error"):
        engine.encode(["why"], on_error="ignore")


class Blames:
    """An encoder that refuses one word, naming no row in a way to rely on."""

    native = tier = None

    def __init__(self, inner):
        self._inner = inner
        self.dim, self.max_tokens, self.identity, self.summary = inner.dim, inner.max_tokens, inner.identity, "blames"
        self.count_tokens = inner.count_tokens

    def encode(self, prompts):
        if "bad" in prompts:
            raise InvalidInputError("prompts[0]: refused by the encoder")
        return self._inner.encode(prompts)


def test_a_row_that_the_encoder_blames_fails_alone(engine):
    loaded = LoadedBundle(
        engine.bundle, options=LoadOptions(), encoders={engine.encoder.identity: Blames(engine.encoder)}
    )
    policy = loaded.resolve(None, {"tau": 0.4})
    made = loaded.route(RouteRequest(["why", "bad", "how"], policy, on_error="status"))
    assert [row.status for row in made] == ["ok", "invalid_input", "ok"]
    assert made[1].reason == "prompts[1]: refused by the encoder"
    assert bits(made[2]) == bits(engine.route("how", tau=0.4))


def test_both_tiers_go_on(tmp_path):
    engine = Engine(join(tmp_path, make_tiers(tmp_path), gap=10.0))
    prompts = ["what is the story", "", "how to code"]
    decisions = engine.route_many(prompts, tau=0.3, on_error="status")
    assert [row.status for row in decisions] == ["ok", "invalid_input", "ok"]
    assert decisions.escalated.tolist() == [True, False, True]
    assert bits(decisions[2]) == bits(engine.route("how to code", tau=0.3))
    first, second = (engine.encode(prompts, second=tier, on_error="status") for tier in (False, True))
    kept = engine.decide(first, tau=0.3, second=second, on_error="status")
    assert [row.status for row in kept] == [row.status for row in decisions]
    assert [bits(kept[row]) for row in (0, 2)] == [bits(decisions[row]) for row in (0, 2)]


def test_a_bad_prompt_has_no_record(engine):
    lines = []
    recorder = engine.recorder(lines.append, keep_prompts=True)
    decisions = recorder.route_many(["why", "", "how"], tau=0.4, id=["a", "b", "c"], on_error="status")
    assert [row.status for row in decisions] == ["ok", "invalid_input", "ok"]
    records = [Record.from_line(line) for line in b"".join(lines).splitlines()]
    assert [(record.id, record.prompt) for record in records] == [("a", "why"), ("c", "how")]


def test_objects_of_sdks_are_kept_in_a_record_as_their_fields(engine):
    lines = []
    turn = SimpleNamespace(role="assistant", content="since")
    user = {"role": "user", "content": "why"}
    engine.recorder(lines.append, keep_prompts=True).route([user, turn, user], tau=0.4)
    assert Record.from_line(lines[0]).prompt == [user, {"role": "assistant", "content": "since"}, user]


# -- nothing of a prompt in an error, nor behind it


def everything_behind(error):
    """What an error tracker may send away: every error of the chain, with its arguments."""
    told = []
    while error is not None:
        told += [
            repr(error),
            repr(error.args),
            repr(vars(error)),
            *(repr(getattr(error, name, "")) for name in ("object", "doc")),
        ]
        error = error.__cause__ or error.__context__
    return " ".join(told)


def test_a_lone_surrogate_leaves_no_text_behind_the_error(engine, by_library, tmp_path):
    bad = f"{SECRET} \udc80"
    chat = [{"role": "user", "content": "why"}, {"role": "system", "content": bad}]
    cache = EmbeddingCache(tmp_path)
    attempts = [lambda: cache.embed(engine.encoder, [bad])]
    for one in (engine, by_library):
        for call, prompt in (
            (one.route, bad),
            (one.route_many, ["why", bad]),
            (one.route, chat),
            (one.route_many, [chat]),
            (one.route, {"messages": chat}),
        ):
            attempts.append(lambda call=call, prompt=prompt: call(prompt, tau=0.2))
        attempts.append(lambda one=one: one.encode([bad]))
        attempts.append(lambda one=one: one.encoder.encode([bad]))
        attempts.append(lambda one=one: one.encoder.count_tokens(bad))
    for attempt in attempts:
        with pytest.raises(InvalidInputError, match="surrogate") as caught:
            attempt()
        assert SECRET not in everything_behind(caught.value)
        shown = "".join(traceback.format_exception(caught.value))
        assert "During handling" not in shown


def test_a_damaged_record_leaves_no_text_behind_the_error():
    with pytest.raises(RecordError, match="one JSON object") as caught:
        Record.from_line(f'{{"prompt": "{SECRET}"')
    assert SECRET not in everything_behind(caught.value)
