"""A tokenizer.json turns text into ids: in C++ where that gives the very ids of the `tokenizers` library, else by the library."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import WordPiece as NativeWordPiece
from ipr_engine._extras import need
from ipr_engine._validate import lone_surrogate
from ipr_engine.encoders.full_width import without_full_width
from ipr_engine.errors import BundleFormatError, InvalidInputError

TOKENIZERS = ("auto", "wordpiece", "tokenizers")


class Tokenizer(Protocol):
    """A `Tokenizer` turns text into ids, as `tokenizers` does with encode_special_tokens = True and no special token added."""

    @property
    def kind(self) -> str:
        """The kind of the tokenizer: "wordpiece" (C++) or "tokenizers" (the library)."""
        ...

    @property
    def unk_id(self) -> int:
        """The id of unknown tokens, -1 if there is none."""
        ...

    @property
    def max_id(self) -> int:
        """The largest id of the vocabulary."""
        ...

    def encode(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """Return ids (tokens,), and whether each is the first of its word (tokens,)."""
        ...

    def count(self, text: str) -> int:
        """Return the number of ids that `encode` gives."""
        ...


class WordPieceTokenizer:
    """A `WordPieceTokenizer` runs BertNormalizer, BertPreTokenizer and WordPiece in C++."""

    kind = "wordpiece"

    def __init__(self, native: NativeWordPiece) -> None:
        self.native = native
        self.unk_id = native.unk_id
        self.max_id = native.max_id

    def encode(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        return self.native.encode(text)

    def count(self, text: str) -> int:
        return self.native.count(text)


class LibraryTokenizer:
    """A `LibraryTokenizer` runs any tokenizer.json by the `tokenizers` library, which is imported only when one is built.

    fold_width: whether it gets texts without full width forms.
    """

    kind = "tokenizers"

    def __init__(self, json_text: str, wanted_for: str = "kind 'tokenizers'", *, fold_width: bool = False) -> None:
        self._fold_width = fold_width
        library = need("tokenizers", f"tokenizer: {wanted_for}", "tokenizers")
        try:
            self._library = library.Tokenizer.from_str(json_text)
        except Exception as error:  # the library raises bare Exception for what it cannot read
            raise BundleFormatError(f"tokenizer.json: the tokenizers library cannot read it: {error}") from error
        self._library.no_truncation()
        self._library.no_padding()
        self._library.encode_special_tokens = True
        self.unk_id = _library_unk_id(self._library, json_text)
        self.max_id = max(self._library.get_vocab().values(), default=-1)

    def encode(self, text: str) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        encoding = self._encode(text)
        words = [-1 if word is None else word for word in encoding.word_ids]
        word = np.array(words, dtype=np.int64)
        starts = np.ones(len(words), dtype=np.bool_)
        starts[1:] = (word[1:] != word[:-1]) | (word[1:] < 0)  # an id of no word is a word of its own
        return np.array(encoding.ids, dtype=np.uint32), starts

    def count(self, text: str) -> int:
        return len(self._encode(text))

    def _encode(self, text: str) -> Any:
        if not isinstance(text, str):
            raise InvalidInputError(f"text: expected str, got {type(text).__name__}")
        at = lone_surrogate(text)
        if at is not None:
            raise InvalidInputError(f"text: expected Unicode text, got a lone surrogate at {at}")
        folded = without_full_width(text) if self._fold_width else text
        try:
            return self._library.encode(folded, add_special_tokens=False)
        except Exception as error:  # bare again; for one, a word needs an unk_token that the vocabulary lacks
            raise BundleFormatError(f"tokenizer.json: the tokenizers library fails on a text: {error}") from error


def read_tokenizer(
    json_bytes: bytes, tokenizer: str = "auto", *, fold_width: bool = False
) -> WordPieceTokenizer | LibraryTokenizer:
    """Build the tokenizer of a tokenizer.json.

    Args:
        json_bytes: the file's bytes.
        tokenizer: "wordpiece" (C++) or "tokenizers" (the library); "auto" takes C++ where its ids are the library's.
        fold_width: whether a text's full width forms are ASCII, and its ideographic spaces blanks, before any other step.
    Raises:
        InvalidInputError: tokenizer is another word, or "wordpiece" for a file that C++ does not reproduce exactly.
        BundleFormatError: the bytes are not a tokenizer.json.
        BackendUnavailableError: the library is needed and not installed.
    """
    if tokenizer not in TOKENIZERS:
        raise InvalidInputError(f"tokenizer: expected one of {', '.join(TOKENIZERS)}, got {tokenizer!r}")
    try:
        text = json_bytes.decode()
        tree = json.loads(text)
    except ValueError as error:
        raise BundleFormatError(f"tokenizer.json: not JSON in UTF-8: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise BundleFormatError("tokenizer.json: expected an object with a model")
    if tokenizer == "tokenizers":
        return LibraryTokenizer(text, fold_width=fold_width)
    reason = _why_not_wordpiece(tree)
    if reason is None:
        return WordPieceTokenizer(_native(tree, fold_width))
    if tokenizer == "wordpiece":
        raise InvalidInputError(f"tokenizer: C++ does not give this file's exact ids ({reason}); pass tokenizer='auto'")
    return LibraryTokenizer(text, f"a tokenizer.json that C++ does not reproduce ({reason})", fold_width=fold_width)


def _native(tree: dict[str, Any], fold_width: bool) -> NativeWordPiece:
    """Build the C++ tokenizer of a tree that `_why_not_wordpiece` lets through."""
    model, normalizer = tree["model"], _only(tree["normalizer"], "normalizers")
    try:
        return NativeWordPiece(
            model["vocab"],
            unk_token=model["unk_token"],
            continuing_prefix=model["continuing_subword_prefix"],
            max_chars_per_word=model["max_input_chars_per_word"],
            clean_text=normalizer["clean_text"],
            handle_chinese_chars=normalizer["handle_chinese_chars"],
            strip_accents=normalizer["strip_accents"],
            lowercase=normalizer["lowercase"],
            fold_width=fold_width,
        )
    except InvalidInputError as error:
        raise BundleFormatError(f"tokenizer.json: {error}") from error


def _only(node: Any, members: str) -> Any:
    """Return the only step of a Sequence of one step; any other node as it is."""
    while isinstance(node, dict) and node.keys() == {"type", members} and node["type"] == "Sequence":
        if not isinstance(node[members], list) or len(node[members]) != 1:
            break
        node = node[members][0]
    return node


def _is(node: Any, **fields: Any) -> bool:
    """Return whether node has exactly these keys, each equal to its value or of its type; a type of bool is never an int."""
    if not isinstance(node, dict) or node.keys() != fields.keys():
        return False
    for name, wanted in fields.items():
        kinds = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(type(node[name]) is kind if isinstance(kind, type) else node[name] == kind for kind in kinds):
            return False
    return True


def _why_not_wordpiece(tree: dict[str, Any]) -> str | None:
    """Return why C++ would not give this file's exact ids; None if it does."""
    # Exact keys are asked for: a key that is not known here may change ids.
    normalizer, pre_tokenizer = tree.get("normalizer"), tree.get("pre_tokenizer")
    model, added = tree["model"], tree.get("added_tokens") or []
    if not _is(
        _only(normalizer, "normalizers"),
        type="BertNormalizer",
        clean_text=bool,
        handle_chinese_chars=bool,
        strip_accents=(bool, type(None)),
        lowercase=bool,
    ):
        return f"its normalizer is {_name(normalizer)}"
    if not _is(_only(pre_tokenizer, "pretokenizers"), type="BertPreTokenizer"):
        return f"its pre_tokenizer is {_name(pre_tokenizer)}"
    if not _is(
        model,
        type="WordPiece",
        unk_token=str,
        continuing_subword_prefix=str,
        max_input_chars_per_word=int,
        vocab=dict,
    ):
        return f"its model is {_name(model)}"
    if not 0 <= model["max_input_chars_per_word"] < 1 << 63:
        return "max_input_chars_per_word is out of range"
    if model["unk_token"] not in model["vocab"]:
        return f"its unk_token {model['unk_token']!r} is not in the vocabulary"
    # Special tokens are text in a prompt; other added tokens would be cut out of it before the normalizer runs.
    for token in added:
        if not isinstance(token, dict) or token.get("special") is not True:
            return f"it has the added token {token.get('content') if isinstance(token, dict) else token!r}"
    return None


def _name(node: Any) -> str:
    """Return a node's type for a message."""
    return str(node.get("type")) if isinstance(node, dict) else "absent" if node is None else repr(node)


def _library_unk_id(library: Any, json_text: str) -> int:
    """Return the id of unknown tokens, which model2vec drops; -1 for none. Unigram states it by number, others by name."""
    unk = getattr(library.model, "unk_token", None)
    if unk is not None:
        found = library.token_to_id(unk)
        return -1 if found is None else int(found)
    number = json.loads(json_text)["model"].get("unk_id")
    return -1 if number is None else int(number)
