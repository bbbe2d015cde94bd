"""Which tokenizer.json goes to C++, and that everything else is the library's own answer."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ipr_engine.encoders.tokenizer import LibraryTokenizer, read_tokenizer
from ipr_engine.errors import BundleFormatError, InvalidInputError
from tests.support.wordpieces import OPTIONS, library, made_vocab, tokenizer_json

VOCAB = made_vocab()
TREE = tokenizer_json(VOCAB)
BERT_NORMALIZER, BERT_PRE_TOKENIZER = TREE["normalizer"], TREE["pre_tokenizer"]
TEXT = "Hello [CLS] World! é\u0301 東京 ΑΣ abc\x00 multi word zzz"
ADDED = {"single_word": False, "lstrip": False, "rstrip": False}


def dump(tree: object) -> bytes:
    return json.dumps(tree).encode()


def changed(part: str, **fields: object) -> dict[str, object]:
    return {**TREE, part: {**TREE[part], **fields}}


@pytest.mark.parametrize(
    "tree",
    [
        *(tokenizer_json(VOCAB, options) for options in OPTIONS),
        tokenizer_json(made_vocab("@@", "<unk>"), prefix="@@", unk="<unk>", max_chars=5),
        {**TREE, "normalizer": {"type": "Sequence", "normalizers": [BERT_NORMALIZER]}},
        {**TREE, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BERT_PRE_TOKENIZER]}},
        # As model2vec 0.10 writes it: truncation and padding stand in the file and must not apply.
        {
            **TREE,
            "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "padding": {
                "strategy": {"Fixed": 9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            },
        },
    ],
)
def test_a_bert_tokenizer_goes_to_cpp_and_gives_the_ids_of_the_library(tree):
    ours, theirs = read_tokenizer(dump(tree)), read_tokenizer(dump(tree), "tokenizers")
    assert (ours.kind, theirs.kind) == ("wordpiece", "tokenizers")
    for mine, yours in zip(ours.encode(TEXT), theirs.encode(TEXT), strict=True):
        assert mine.tolist() == yours.tolist()
    assert ours.count(TEXT) == theirs.count(TEXT) == len(ours.encode(TEXT)[0])
    assert (ours.unk_id, ours.max_id) == (theirs.unk_id, theirs.max_id)


NOT_CPP = {
    "no normalizer": {**TREE, "normalizer": None},
    "another normalizer": {**TREE, "normalizer": {"type": "NFC"}},
    "two normalizers": {**TREE, "normalizer": {"type": "Sequence", "normalizers": [BERT_NORMALIZER, {"type": "NFC"}]}},
    "no pre_tokenizer": {**TREE, "pre_tokenizer": None},
    "another pre_tokenizer": {**TREE, "pre_tokenizer": {"type": "Whitespace"}},
    "two pre_tokenizers": {
        **TREE,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [BERT_PRE_TOKENIZER, {"type": "Whitespace"}]},
    },
    "another model": {**TREE, "model": {"type": "WordLevel", "vocab": VOCAB, "unk_token": "[UNK]"}},
    "an added token": {
        **TREE,
        "added_tokens": [
            *TREE["added_tokens"],
            {"id": len(VOCAB), "content": "multi word", "normalized": True, "special": False, **ADDED},
        ],
    },
}


@pytest.mark.parametrize("tree", NOT_CPP.values(), ids=NOT_CPP)
def test_what_cpp_does_not_reproduce_goes_to_the_library(tree):
    tokenizer = read_tokenizer(dump(tree))
    assert isinstance(tokenizer, LibraryTokenizer)
    assert tokenizer.encode(TEXT)[0].tolist() == library(tree).encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.count(TEXT) == len(tokenizer.encode(TEXT)[0])
    with pytest.raises(InvalidInputError, match="tokenizer: C\\+\\+ does not give this file's exact ids"):
        read_tokenizer(dump(tree), "wordpiece")


@pytest.mark.parametrize(
    "tree",
    [
        changed("normalizer", extra=1),
        changed("normalizer", lowercase=1),
        changed("normalizer", strip_accents=0),
        changed("model", max_input_chars_per_word=100.0),
        changed("model", max_input_chars_per_word=True),
        changed("model", max_input_chars_per_word=-1),
        changed("model", unk_token="missing"),
        changed("model", dropout=None),
        {**TREE, "added_tokens": [{"content": "x"}]},
    ],
)
def test_a_field_that_cpp_does_not_know_is_never_guessed_at(tree):
    with pytest.raises((InvalidInputError, BundleFormatError)):
        read_tokenizer(dump(tree), "wordpiece")


def test_word_starts_of_the_library_follow_its_words():
    tokenizer = read_tokenizer(dump(NOT_CPP["an added token"]))
    ids, starts = tokenizer.encode("multi word multi word")
    assert ids.tolist() == [len(VOCAB)] * 2
    assert starts.tolist() == [True, True]


def test_a_text_that_the_library_cannot_encode_is_an_error_that_says_so():
    tokenizer = read_tokenizer(dump(changed("model", unk_token="missing")))
    with pytest.raises(BundleFormatError, match="Missing"):
        tokenizer.encode("ᚠᚢ")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"model": 1}'])
def test_what_is_no_tokenizer_json_is_refused(content):
    with pytest.raises(BundleFormatError, match=r"tokenizer\.json"):
        read_tokenizer(content)


@pytest.mark.parametrize("vocab", [{"[UNK]": -1}, {"[UNK]": 0, "\ud800": 1}, {"[UNK]": 0, "a": 1.5}, {"[UNK]": "0"}])
def test_a_bad_vocabulary_is_refused(vocab):
    with pytest.raises(BundleFormatError, match=r"tokenizer\.json: vocab"):
        read_tokenizer(dump(changed("model", vocab=vocab)))


def test_an_unknown_choice_is_refused():
    with pytest.raises(InvalidInputError, match="tokenizer: expected one of auto, wordpiece, tokenizers, got 'fast'"):
        read_tokenizer(dump(TREE), "fast")


@pytest.mark.parametrize("kind", ["wordpiece", "tokenizers"])
def test_both_kinds_refuse_the_same_texts(kind):
    tokenizer = read_tokenizer(dump(TREE), kind)
    for method in (tokenizer.encode, tokenizer.count):
        with pytest.raises(InvalidInputError, match="text: expected str, got bytes"):
            method(b"a")
        with pytest.raises(InvalidInputError, match=r"text: .*surrogate"):
            method("a\ud800")


def test_the_library_is_imported_only_when_needed():
    code = (
        "import sys, ipr_engine.encoders.static, ipr_engine.encoders.tokenizer as t\n"
        f"assert t.read_tokenizer({dump(tokenizer_json({'[UNK]': 0}))!r}).kind == 'wordpiece'\n"
        "assert 'tokenizers' not in sys.modules and 'safetensors' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
