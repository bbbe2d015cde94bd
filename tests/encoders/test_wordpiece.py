"""The C++ tokenizer gives the ids of the `tokenizers` library: on every code point, generated text, real prompts."""

from __future__ import annotations

import functools
import json
import random
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import _C
from ipr_engine.errors import InvalidInputError
from tests.support import skips
from tests.support.wordpieces import (
    ALPHABET,
    BERT,
    OPTIONS,
    SCRIPTS,
    assert_same_ids,
    library,
    library_words,
    made_vocab,
    minilm_json,
    native,
    tokenizer_json,
)

EVERY = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]


@functools.cache
def telling() -> tuple[int, ...]:
    """Every code point that is not just a letter by itself, and some of those."""
    plain = {"Cn", "Co", "Lo"}
    codes = [code for code in EVERY if unicodedata.category(chr(code)) not in plain or code % 29 == 0]
    return *codes, *(code for code in EVERY if unicodedata.decomposition(chr(code)) and code % 29 and code < 0x2FA1E)


CODES = [pytest.param(lambda: EVERY, marks=pytest.mark.slow, id="all"), pytest.param(telling, id="telling")]
# Alone, between letters, doubled; among marks that strip_accents deletes (0301, 0316) and that it keeps (302e, 1d165).
CONTEXTS = ("{0}", "a{0}b", "{0}{0}", "e\u0301{0}\u0316x", "o\u302e{0}\u0301\U0001d165{0}\u0334n")


def chunks(codes: Sequence[int], context: str, size: int = 2048) -> Iterator[tuple[Sequence[int], str]]:
    for start in range(0, len(codes), size):
        part = codes[start : start + size]
        yield part, "\n".join(context.format(chr(code)) for code in part)


def assert_same_words(options: tuple[bool, bool, bool | None, bool], codes: Sequence[int], context: str) -> None:
    tree = tokenizer_json({"[UNK]": 0}, options)
    ours, theirs = native(tree), library(tree)
    for part, text in chunks(codes, context):
        if ours.words(text) != library_words(theirs, text):
            for code in part:
                case = context.format(chr(code))
                assert ours.words(case) == library_words(theirs, case), f"U+{code:04X} in {context!r}"
            raise AssertionError(f"the words of U+{part[0]:04X} to U+{part[-1]:04X} differ only together")


@pytest.mark.parametrize(
    "context", CONTEXTS, ids=["alone", "between letters", "doubled", "after a mark", "among marks"]
)
@pytest.mark.parametrize("codes", CODES)
def test_words_equal_over_every_code_point(context, codes):
    assert_same_words(BERT, codes(), context)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_words_equal_for_every_normalizer_option(options):
    assert_same_words(options, telling(), CONTEXTS[-1])


@pytest.mark.parametrize("codes", CODES)
def test_ids_equal_over_every_code_point_with_a_vocabulary_of_characters(codes):
    ours = native(tokenizer_json({"[UNK]": 0}))
    normalized = {char for code in codes() if code < 0x30000 for char in ours.words(chr(code)) if len(char) == 1}
    tokens = ["[UNK]", *sorted(normalized), *(f"##{char}" for char in sorted(normalized))]
    tree = tokenizer_json({token: id for id, token in enumerate(tokens)})
    assert_same_ids(native(tree), library(tree), (text for _, text in chunks(codes(), "{0} a{0}b {0}{0}")), words=False)


@pytest.mark.slow
def test_ids_equal_over_every_code_point_with_the_real_vocabulary():
    path = minilm_json()
    if path is None:
        pytest.skip(skips.MINILM)
    tree = json.loads(path.read_text())
    assert_same_ids(
        native(tree), library(tree), (text for _, text in chunks(EVERY, "{0} a{0}b {0}{0} e\u0301{0}x")), words=False
    )


def texts() -> st.SearchStrategy[str]:
    """Runs of one script, mixes of all, and any Unicode at all."""
    run = st.sampled_from(sorted(SCRIPTS)).flatmap(lambda name: st.text(SCRIPTS[name], max_size=12))
    special = st.sampled_from(
        ["[CLS]", "[UNK]", "##a", "İstanbul", "ΟΔΟΣ", "e\u0301\u0316\u302e", "\U0001d15e\u0316", "ﬃ", "a" * 100]
    )
    piece = st.one_of(run, run, st.text(ALPHABET, max_size=20), st.text(max_size=8), special)
    return st.lists(piece, max_size=12).map("".join)


TREES = {options: tokenizer_json(made_vocab(), options) for options in OPTIONS}
PAIRS = {options: (native(tree), library(tree)) for options, tree in TREES.items()}


@settings(max_examples=30 * settings.default.max_examples, deadline=None, derandomize=True)
@given(texts(), st.sampled_from(OPTIONS))
def test_ids_equal_on_generated_unicode(text, options):
    ours, theirs = PAIRS[options]
    assert_same_ids(ours, theirs, [text])
    assert ours.words(text) == library_words(theirs, text)


@pytest.mark.parametrize("prefix", ["##", "", "a", "@@", "Ġ"])
@pytest.mark.parametrize(
    ("unk", "max_chars"), [("[UNK]", 100), ("<unk>", 7), ("x", 1), ("[UNK]", 0), ("[UNK]", 1 << 40)]
)
def test_ids_equal_for_other_model_settings(prefix, unk, max_chars):
    tree = tokenizer_json(made_vocab(prefix, unk, seed=1), prefix=prefix, unk=unk, max_chars=max_chars)
    random_ = random.Random(repr((prefix, unk, max_chars)))
    letters = [*SCRIPTS.values(), ALPHABET, "abc", "aab "]
    cases = ["".join(random_.choices(random_.choice(letters), k=random_.randrange(40))) for _ in range(400)]
    assert_same_ids(native(tree), library(tree), cases)


LENGTHS = [1, 15, 16, 17, 63, 64, 65, 99, 100, 101, 102, 127, 128, 129, 1000]


@pytest.mark.parametrize("length", [*LENGTHS, pytest.param(70_000, marks=pytest.mark.slow)])
def test_ids_equal_for_words_of_every_length(length):
    ours, theirs = PAIRS[BERT]
    filled = [
        "a" * length,
        "é" * length,
        "Aé" * length,
        "語" * length,
        "가" * length,
        "\u0301" * length,
        "\u302e" * length,
    ]
    around = [f"{before}{word}{after}" for word in filled for before in ("", "b ", "é.") for after in ("", " c", "!é")]
    assert_same_ids(ours, theirs, around)


@pytest.mark.parametrize("offset", range(0, 70, 3))
def test_ids_do_not_depend_on_where_a_window_ends(offset):
    ours, theirs = PAIRS[BERT]
    text = "Ab c, é\u0301d 東x\x00y\x7fz [CLS]\t" * 6
    assert_same_ids(
        ours, theirs, ["." * offset + text, "q" * offset + text, "é" * offset + text, text[: len(text) - offset]]
    )


def test_special_tokens_written_out_are_text():
    ours, theirs = PAIRS[BERT]
    vocab = TREES[BERT]["model"]["vocab"]
    assert_same_ids(ours, theirs, ["[CLS]", "a[SEP]b", "[UNK] [PAD]", "[MASK]", "[cls]"])
    assert vocab["[CLS]"] not in ours.encode("[CLS]")[0]


def test_embedded_nul_is_a_character_like_any_other():
    text = "a\0b \0 \0\0c"
    for options in OPTIONS:
        assert_same_ids(*PAIRS[options], [text])
    assert PAIRS[False, True, None, True][0].words("a\0b") == ["a\0b"]
    assert PAIRS[BERT][0].words("a\0b") == ["ab"]


def test_empty_text_has_no_ids():
    assert PAIRS[BERT][0].encode("")[0].tolist() == []
    assert PAIRS[BERT][0].count("") == 0


@pytest.mark.parametrize("unit", ["x", "xyzzy ", "é", "語", "\u302e", "zq\u0316", "\0", "a"], ids=ascii)
def test_ten_megabytes_of_anything_are_counted(unit):
    """One word, or as many as fit: benchmarks show that the time is linear, a quadratic path would not end here."""
    ours = PAIRS[BERT][0]
    repeats = 500_000 // len(unit.encode())
    few, many = ours.count(unit * repeats), ours.count(unit * (20 * repeats))
    assert many in (few, 20 * few)


def test_threads_share_a_tokenizer():
    ours, theirs = PAIRS[BERT]
    random_ = random.Random(5)
    cases = ["".join(random_.choices(ALPHABET, k=3000)) for _ in range(40)]
    expected = [encoding.ids for encoding in theirs.encode_batch(cases, add_special_tokens=False)]
    wrong: list[int] = []

    def work(shift: int) -> None:
        for k in range(200):
            at = (k + shift) % len(cases)
            if ours.encode(cases[at])[0].tolist() != expected[at]:
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("text", [b"a", 1, None, ["a"]], ids=repr)
def test_another_type_than_str_is_refused(text):
    for method in (PAIRS[BERT][0].encode, PAIRS[BERT][0].count, PAIRS[BERT][0].words):
        with pytest.raises(InvalidInputError, match=f"text: expected str, got {type(text).__name__}"):
            method(text)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udce9" * 100])
def test_lone_surrogates_are_refused(text):
    with pytest.raises(InvalidInputError, match=r"text: .*lone surrogate"):
        PAIRS[BERT][0].encode(text)


def test_bad_vocabularies_are_refused():
    with pytest.raises(InvalidInputError, match="unk_token: '\\[UNK\\]' is not in vocab"):
        _C.WordPiece({"a": 0})
    for id in (-1, 1 << 31, 1 << 70, True, 0.5, "1"):
        with pytest.raises(InvalidInputError, match="vocab: expected"):
            _C.WordPiece({"[UNK]": 0, "a": id})
    with pytest.raises(InvalidInputError, match=r"vocab: .*surrogate"):
        _C.WordPiece({"[UNK]": 0, "\ud800": 1})


def test_ids_equal_on_every_prompt_of_the_outcomes(request):
    folder = request.config.getoption("--outcomes")
    if folder is None:
        pytest.skip(skips.OUTCOMES)
    parquet = pytest.importorskip("pyarrow.parquet", reason=skips.PYARROW)
    real = minilm_json()
    tree = json.loads(real.read_text()) if real else TREES[BERT]
    files = sorted(Path(folder).rglob("prompts.parquet"))
    assert files, f"--outcomes {folder}: no prompts.parquet below it"
    ours, theirs, seen = native(tree), library(tree), 0
    for file in files:
        prompts = parquet.read_table(file, columns=["prompt"])["prompt"].to_pylist()
        for start in range(0, len(prompts), 1000):
            assert_same_ids(ours, theirs, prompts[start : start + 1000])
        seen += len(prompts)
    print(f"{seen} prompts of {len(files)} files")
