"""What of several turns is embedded: the last one alone, or each, weighing half of the next one."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine import _C
from ipr_engine._C import MOST_FADING_TURNS, available_isas
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.conversations import counts_of_all_turns, shown_text
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.task_columns import TaskColumns
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import ParsedRequest
from ipr_engine.request.intake import encode_requests
from tests.support.static_tables import tensors, write
from tests.support.wordpieces import ALPHABET, SCRIPTS

KINDS = ["auto", "tokenizers"]
UNKNOWN = "ᚠᚢ"  # one token, which no table knows
TEXTS = [
    "ab cd",
    "ef",
    "",
    " ",
    UNKNOWN,
    "ab" + UNKNOWN + " cd",
    "e\u0301 \u0301a",
    "ab cd. " * 30,
    ALPHABET,
    *SCRIPTS.values(),
]


def conversations(rng, count=40):
    return [tuple(rng.choice(TEXTS, int(rng.integers(1, 6))).tolist()) for _ in range(count)]


def request(turns):
    return ParsedRequest("\n\n".join(turns), turns=tuple(turns) if len(turns) > 1 else ())


def open_table(rng, folder, *, dim=17, dtype="float32", normalize=True, **options):
    write(folder, tensors(rng, dtype, dim, False, True), config={"normalize": normalize})
    return StaticEncoder.from_folder(folder, **options)


def weighed(encoder, turns):
    """The definition, in float64, of the columns of the whole."""
    alone = encoder.encode(list(turns)).x[:, : encoder.dim - encoder.head_dim].astype(np.float64)
    rows = [row for row in alone[::-1] if row.any()][:MOST_FADING_TURNS]
    if not rows:
        return np.zeros(alone.shape[1])
    weights = 0.5 ** np.arange(len(rows))
    x = weights @ np.stack(rows) / weights.sum()
    return x / np.linalg.norm(x) if encoder.normalize and len(rows) > 1 else x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, False], ids=["normalize", "mean"])
def test_recency_is_the_weighted_mean_of_what_each_turn_is_alone(rng, tmp_path, normalize, kind):
    for dtype, dim, head in (("float32", 17, 0), ("int8", 64, 3), ("float16", 250, 0)):
        encoder = open_table(
            rng, tmp_path, dim=dim, dtype=dtype, normalize=normalize, tokenizer=kind, head_tokens=head, max_tokens=9
        )
        talks = conversations(rng)
        found = encode_requests(encoder, [request(turns) for turns in talks], "recency")
        for x, turns in zip(found.x, talks, strict=True):
            expected = weighed(encoder, turns)
            assert np.abs(x[:dim] - expected).max() <= 4e-7 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conversation", ["last", "recency"])
def test_every_instruction_set_and_either_tokenizer_give_the_same_bits(rng, tmp_path, conversation, kind):
    plain = open_table(rng, tmp_path, dim=65, head_tokens=4, max_tokens=9, isa="scalar", tokenizer="auto")
    talks = [request(turns) for turns in conversations(rng)]
    expected = encode_requests(plain, talks, conversation)
    for isa in available_isas():
        encoder = StaticEncoder.from_folder(tmp_path, head_tokens=4, max_tokens=9, isa=isa, tokenizer=kind)
        found = encode_requests(encoder, talks, conversation)
        assert found.x.tobytes() == expected.x.tobytes()
        assert found.billed_tokens.tolist() == expected.billed_tokens.tolist()
        assert found.truncated.tolist() == expected.truncated.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conversation", ["last", "recency"])
def test_one_turn_has_the_bits_of_its_text_and_every_bill_is_that_of_all_turns(rng, tmp_path, conversation, kind):
    table = open_table(rng, tmp_path, head_tokens=3, tokenizer=kind)
    for encoder in (table, ConcatenatedEncoder([table, TaskColumns(["code"]), SurfaceEncoder.load()])):
        talks = conversations(rng)
        whole = encoder.encode(["\n\n".join(turns) for turns in talks])
        found = encode_requests(encoder, [request(turns) for turns in talks], conversation)
        assert found.billed_tokens.tolist() == whole.billed_tokens.tolist()
        single = encode_requests(encoder, [request((text,)) for text in TEXTS] + [request(("ab", "cd"))], conversation)
        assert single.x[:-1].tobytes() == encoder.encode(TEXTS).x.tobytes()
        assert encode_requests(encoder, TEXTS, conversation).x.tobytes() == encoder.encode(TEXTS).x.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_last_is_the_newest_turn_that_has_a_token(rng, tmp_path, kind):
    encoder = open_table(rng, tmp_path, head_tokens=2, tokenizer=kind, max_tokens=9)
    long = "ab cd. " * 30
    for turns, newest, cut in (
        (("ab", "cd ef"), "cd ef", False),
        (("ab", "cd ef", "", " ", "\u200b"), "cd ef", False),
        ((long, "cd"), "cd", False),
        (("cd", long), long, True),
        (("ab", UNKNOWN), UNKNOWN, False),
        (("", " "), "", False),
    ):
        found = encode_requests(encoder, [request(turns)], "last")
        assert found.x.tobytes() == encoder.encode([newest]).x.tobytes()
        assert found.truncated.tolist() == [cut]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_text_looks_like_and_how_it_begins_are_of_the_newest_turn(rng, tmp_path, kind):
    table, surface = open_table(rng, tmp_path, head_tokens=2, tokenizer=kind), SurfaceEncoder.load()
    encoder = ConcatenatedEncoder([table, TaskColumns(["code", "chat"]), surface])
    found = encode_requests(encoder, [request(("ab cd", "ef 12?", " "))], "recency").x[0]
    width = table.dim - table.head_dim
    assert found[width : table.dim].tobytes() == table.encode(["ef 12?"]).x[0, width:].tobytes()
    assert found[table.dim : table.dim + 2].tolist() == [0, 0]
    assert found[table.dim + 2 :].tobytes() == surface.encode(["ef 12?"]).x[0].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_without_a_known_token_weighs_nothing(rng, tmp_path, kind):
    encoder = open_table(rng, tmp_path, tokenizer=kind)
    turns = ("ab", "cd ef")
    expected = encode_requests(encoder, [request(turns)], "recency").x.tobytes()
    for more in (("ab", "", "cd ef"), ("ab", UNKNOWN, "cd ef"), (" ", "ab", "cd ef", UNKNOWN), ("ab", "cd ef", "")):
        assert encode_requests(encoder, [request(more)], "recency").x.tobytes() == expected
    alone = encode_requests(encoder, [request((UNKNOWN, "ab", ""))], "recency")
    assert alone.x.tobytes() == encoder.encode(["ab"]).x.tobytes()
    assert not encode_requests(encoder, [request((UNKNOWN, UNKNOWN))], "recency").x.any()


@pytest.mark.parametrize("kind", KINDS)
def test_turns_beyond_the_most_are_billed_alone(rng, tmp_path, kind):
    encoder = open_table(rng, tmp_path, tokenizer=kind, max_tokens=9)
    newest = ("cd ef", "ab") * (MOST_FADING_TURNS // 2)
    older = ("ab cd. " * 30, "ef ef ab")
    few, many = encode_requests(encoder, [request(newest), request(older + newest)], "recency").x
    assert few.tobytes() == many.tobytes()
    made = encode_requests(encoder, [request(older + newest), request(older + newest[:-1])], "recency")
    assert made.billed_tokens[0] == encoder.count_tokens("\n\n".join(older + newest))
    assert made.truncated.tolist() == [False, False]
    assert encode_requests(encoder, [request(older + newest[:-2])], "recency").truncated.tolist() == [True]


def test_several_tables_weigh_turns_each_and_a_transformer_none(rng, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tables = [open_table(rng, tmp_path / name, dim=dim) for name, dim in (("one", 8), ("two", 24))]
    talks = [request(turns) for turns in conversations(rng)]
    joined = encode_requests(ConcatenatedEncoder(tables), talks, "recency").x
    parts = [encode_requests(table, talks, "recency").x for table in tables]
    assert joined.tobytes() == np.concatenate(parts, axis=1).tobytes()

    class Model:
        dim, max_tokens, identity, summary, tier, native = 4, 9, "m" * 64, "a model", "torch", None

        def encode(self, prompts):
            made = tables[0].encode(prompts)
            return type(made)(made.x[:, :4].copy(), made.billed_tokens, made.truncated)

        def count_tokens(self, text):
            return tables[0].count_tokens(text)

    for encoder in (Model(), ConcatenatedEncoder([tables[0], Model()])):
        with pytest.raises(
            InvalidInputError, match="conversation: recency is of tables, and a model is none; use last or all"
        ):
            encode_requests(encoder, talks, "recency")
        assert (
            encode_requests(encoder, talks, "all").x.tobytes() == encoder.encode([t.encoded for t in talks]).x.tobytes()
        )
        last = encode_requests(encoder, [request(("ab cd", "ef", " "))], "last")
        assert last.x.tobytes() == encoder.encode(["ef"]).x.tobytes()
        assert last.billed_tokens.tolist() == [encoder.count_tokens("ab cd ef")]


def test_words_that_are_given_away_are_those_that_are_encoded():
    talk = request(("a b c", "d", " "))
    assert shown_text(talk, "all") == "a b c\n\nd\n\n "
    assert shown_text(talk, "last") == "d"
    assert shown_text(talk, "recency") == "a b c\n\nd"
    assert shown_text("a b", "recency") == "a b"
    assert shown_text(request((" ", "")), "last") == " \n\n"
    assert shown_text(request(("old", *"ab" * 8)), "recency") == "\n\n".join("ab" * 8)


def test_c_plus_plus_refuses_what_is_no_conversation(rng, tmp_path):
    native = open_table(rng, tmp_path).native
    for wrong, message in (
        (([()], "last"), r"prompts\[0\]: expected at least one turn"),
        ((["ab"], "last"), r"prompts\[0\]: expected a tuple of str"),
        (([("ab", 3)], "last"), r"prompts\[0\]: expected str, got int"),
        (([("ab", "\ud800")], "recency"), r"prompts\[0\]: expected Unicode text, got a lone surrogate"),
        (([("ab",)], "all"), "conversation: expected last or recency, got all"),
        (([("ab",)], "first"), "conversation: expected all, last or recency, got first"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            native.encode_turns(*wrong)
    with pytest.raises(InvalidInputError, match=r"means: expected shape \(up to 16, 17\)"):
        native.fade(np.zeros((MOST_FADING_TURNS + 1, 17), np.float32))
    with pytest.raises(InvalidInputError, match="without a tokenizer"):
        _C.StaticEncoder(np.zeros((1, 1), np.float32)).encode_turns([("ab",)], "last")


def test_tokens_are_counted_again_only_where_less_than_all_turns_were_encoded(rng, tmp_path, monkeypatch):
    encoder, asked = open_table(rng, tmp_path), [request(("ab cd", "ef")), request(("ef",))]
    again, count = [], encoder.count_tokens
    monkeypatch.setattr(encoder, "count_tokens", lambda text: again.append(text) or count(text), raising=False)
    counts = np.array([count(one.encoded) for one in asked])
    for conversation, texts in (("all", []), ("last", [asked[0].encoded])):
        again.clear()
        assert counts_of_all_turns(encoder, asked, counts, conversation).tolist() == counts.tolist()
        assert again == texts
