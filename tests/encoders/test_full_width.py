"""Folding of full width forms: the ids are the `tokenizers` library's with a Replace for each before its normalizer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import _C
from ipr_engine._C import available_isas
from ipr_engine.data.prompt_edits import EDITS
from ipr_engine.encoders.full_width import FULL_WIDTH, without_full_width
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface_text import symbols_of
from ipr_engine.encoders.tokenizer import read_tokenizer
from ipr_engine.errors import InvalidInputError
from tests.support.static_tables import tensors, write
from tests.support.wordpieces import (
    ALPHABET,
    BERT,
    OPTIONS,
    SCRIPTS,
    assert_same_ids,
    library,
    library_words,
    made_vocab,
    native,
    tokenizer_json,
)

FORMS = "".join(map(chr, FULL_WIDTH))
VOCAB = made_vocab()
# Neither half width katakana, nor the signs behind it, nor wide brackets are folded.
NEAR = "\uff00\uff5f\uff61\uff65\uff66\uff9f\uffe0\uffe6\u2fff\u3001"
TEXTS = [
    "",
    FORMS,
    " ".join(FORMS),
    "".join(f"a{form}b{form}{form}" for form in FORMS),
    "".join(f"e\u0301{form}\u0316x\u302e{form}\u0301\U0001d165{form}\u0334n" for form in FORMS),
    "".join(f"東{form}京é{form}É\x00{form}\u200b가{form}" for form in FORMS),
    "a\x00".join(FORMS),
    NEAR,
    *(("ａＢ" + "c" * length) * 2 for length in range(55, 70)),  # across windows of 64 bytes
    "Ａ" * 100,
    "Ａ" * 101,
    "ａ" * 99 + "b" * 2,
]
PROMPTS = ["ab cd. " * 40, "ab [cd] ef? 12 + 3 = {}", ALPHABET, *SCRIPTS.values()]
WIDE = EDITS["full width"]


def folding(tree: dict[str, Any]) -> tuple[_C.WordPiece, Any]:
    """The C++ tokenizer that folds, and the library's: a Replace for each form before BertNormalizer."""
    steps = [
        {"type": "Replace", "pattern": {"String": chr(wide)}, "content": chr(to)} for wide, to in FULL_WIDTH.items()
    ]
    oracle = {**tree, "normalizer": {"type": "Sequence", "normalizers": [*steps, tree["normalizer"]]}}
    return native({**tree, "normalizer": {**tree["normalizer"], "fold_width": True}}), library(oracle)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ids_and_words_are_the_librarys_for_every_normalizer_option(options):
    ours, theirs = folding(tokenizer_json(VOCAB, options))
    assert_same_ids(ours, theirs, TEXTS)
    for text in TEXTS:
        assert ours.words(text) == library_words(theirs, text)


PAIRS = {options: folding(tokenizer_json(VOCAB, options)) for options in (BERT, (False, False, False, False))}
RUNS = st.one_of(
    *(st.text(letters, max_size=8) for letters in (FORMS, ALPHABET, "ａｂＡＢab　", NEAR)), st.text(max_size=4)
)


@settings(max_examples=10 * settings.default.max_examples, deadline=None, derandomize=True)
@given(st.lists(RUNS, max_size=10).map("".join), st.sampled_from(sorted(PAIRS, reverse=True)))
def test_ids_are_the_librarys_on_generated_text(text, options):
    assert_same_ids(*PAIRS[options], [text])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_folding_is_the_same_as_tokenizing_the_folded_text(options):
    tree = tokenizer_json(VOCAB, options)
    ours, plain = folding(tree)[0], native(tree)
    for text in TEXTS:
        for found, expected in zip(ours.encode(text), plain.encode(without_full_width(text)), strict=True):
            assert found.tolist() == expected.tolist()


def test_ascii_is_tokenized_as_without_folding():
    tree = tokenizer_json(VOCAB)
    text = "".join(map(chr, range(128))) * 3
    assert folding(tree)[0].encode(text)[0].tolist() == native(tree).encode(text)[0].tolist()


def test_every_reader_means_the_same_forms():
    assert "".join(chr(code) for code in (*range(0xFF01, 0xFF5F), 0x3000)) == FORMS
    assert without_full_width(FORMS) == "".join(map(chr, range(0x21, 0x7F))) + " "
    for form in FORMS:  # surface features
        assert symbols_of(form)[0] == symbols_of(without_full_width(form))[0]
    assert without_full_width(NEAR) == NEAR
    printable = without_full_width(FORMS)[:-1]
    assert WIDE(printable) == FORMS[:-1]


UNIGRAM = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], *([char, -3.0] for char in "abcwht?"), ["what", -1.0]],
        "byte_fallback": False,
    },
}


@pytest.mark.parametrize(("tree", "kind"), [(tokenizer_json(VOCAB), "tokenizers"), (UNIGRAM, "auto")])
def test_the_library_gets_the_folded_text(tree, kind):
    content = json.dumps(tree).encode()
    folds, plain = (read_tokenizer(content, kind, fold_width=fold) for fold in (True, False))
    assert folds.kind == "tokenizers"
    for text in (*TEXTS, "ｗｈａｔ　ａｂ？"):
        for found, expected in zip(folds.encode(text), plain.encode(without_full_width(text)), strict=True):
            assert found.tolist() == expected.tolist()
        assert folds.count(text) == plain.count(without_full_width(text))
    assert folds.encode("ｗｈａｔ")[0].tolist() != plain.encode("ｗｈａｔ")[0].tolist()
    with pytest.raises(InvalidInputError, match="lone surrogate at 1"):
        folds.encode("ａ\ud800")


@pytest.mark.parametrize("kind", ["auto", "tokenizers"])
def test_a_prompt_in_full_width_is_embedded_as_in_ascii_to_the_bit(rng, tmp_path, kind):
    write(tmp_path, tensors(rng, "int8", 17, True, True))
    for isa in available_isas():
        more: dict[str, Any] = {"max_tokens": 9, "head_tokens": 4, "isa": isa, "tokenizer": kind}
        plain = StaticEncoder.from_folder(tmp_path, **more).encode(PROMPTS)
        encoder = StaticEncoder.from_folder(tmp_path, fold_width=True, **more)
        for prompts in (PROMPTS, [WIDE(prompt) for prompt in PROMPTS]):
            found = encoder.encode(prompts)
            assert found.x.tobytes() == plain.x.tobytes()
            assert found.billed_tokens.tolist() == plain.billed_tokens.tolist()
            assert found.truncated.tolist() == plain.truncated.tolist()
            assert [encoder.count_tokens(prompt) for prompt in prompts] == plain.billed_tokens.tolist()


def test_identity_names_the_folding_and_stays_without(rng, tmp_path):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    plain, off, on, both, viewed = (
        StaticEncoder.from_folder(tmp_path, **more)
        for more in (
            {},
            {"fold_width": False},
            {"fold_width": True},
            {"fold_width": True, "head_tokens": 3},
            {"head_tokens": 3},
        )
    )
    assert plain.identity == off.identity
    assert len({plain.identity, on.identity, both.identity, viewed.identity}) == 4
    assert "full width folded" in on.summary
    assert "width" not in plain.summary
    assert "fold_width=True" in repr(on)


@pytest.mark.parametrize("fold_width", [1, None, "yes", np.bool_(True)])
def test_what_is_no_bool_is_refused(rng, tmp_path, fold_width):
    write(tmp_path, tensors(rng, "int8", 8, False, False))
    with pytest.raises(InvalidInputError, match="fold_width: expected True or False"):
        StaticEncoder.from_folder(tmp_path, fold_width=fold_width)
