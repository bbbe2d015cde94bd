"""Surface features: the C++ has the bits of the definition, and no form that says the same changes one of them."""

import random
import re
import runpy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine.bundle.surface_lexicon import DEFAULT_LEXICON, PLAIN_COLUMNS
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.surface_columns import plain_columns
from ipr_engine.encoders.surface_reference import surface_counts, surface_reference
from ipr_engine.encoders.surface_text import BREAKS, lowered, symbols_of
from ipr_engine.errors import InvalidInputError
from tests.support.places import ROOT
from tests.support.wordpieces import SCRIPTS

ENCODER = SurfaceEncoder.load()
PARTS = (
    *(
        "a)",
        "(b)",
        "c.",
        "D:",
        "(A)",
        "1.",
        "2)",
        "(3)",
        "10.",
        "99.",
        "x.y",
        "foo_bar",
        "____",
        "...",
        "…",
        "==",
        "->",
        "()",
    ),
    *(
        "f(x)",
        "What",
        "how many",
        "price",
        "ｗｈａｔ",
        "１２３",
        "é",
        "É",
        "ß",
        "ﬁ",
        "İ",
        "ſ",
        "Σ",
        "ς",
        "Привет",
        "日本語",
        "これは",
    ),
    *(
        "สวัสดี",
        "한국어",
        "العربية؟",
        "हिन्दी।",
        "\n",
        "  ",
        "\t",
        "\u3000",
        "\u00a0",
        "'",
        '"',
        "“",
        "’",
        "```",
        "~~~",
        "```python",
    ),
    *(
        "\\frac{1}{2}",
        "$5",
        "5%",
        "3.14",
        "1,000",
        "https://a.b/c",
        "a@b.c",
        "😀",
        "∑",
        "×",
        "–",
        "\x00",
        "\x7f",
        "\x1c",
        "!",
    ),
    *("?", "!=", "?!", "``", "-5", " - ", "**", "word-word", "x" * 17, "9" * 12, "123456789a", "abcdefgh1", "\u200b"),
    *("\ufeff", "\U00020000", "\U000e0001", "ﾃ", "\u0301", "a" * 70),
)
pieces = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=30)
texts = st.one_of(st.text(max_size=200), pieces.map("".join), pieces.map(" ".join))


def features(text):
    return ENCODER.encode([text]).x[0]


def same_bits(a, b):
    return a.tobytes() == b.tobytes()


def told(text, *names):
    x = features(text)
    return [x[ENCODER.feature_names.index(name)].item() for name in names]


@settings(max_examples=200, deadline=None)
@given(texts)
def test_the_compiled_features_are_those_of_the_definition(text):
    assert same_bits(features(text), surface_reference(text, ENCODER.lexicon))


@pytest.mark.parametrize("text", [*SCRIPTS, *PARTS], ids=ascii)
def test_every_script_and_part_alone_is_as_defined(text):
    for whole in (text, text * 40, f" {text}\n", text.upper()):
        assert same_bits(features(whole), surface_reference(whole, ENCODER.lexicon))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 4095, 4096, 4097, 70_000])
def test_a_block_or_segment_may_end_anywhere(size):
    drawn = random.Random(size)
    text = "".join(drawn.choice(["a", "7", " ", ".", "é", "b) ", "日", "word "]) for _ in range(size))[:size]
    assert same_bits(features(text), surface_reference(text, ENCODER.lexicon))


def test_counts_end_where_float32_ends_to_count():
    most = 1 << 24
    assert same_bits(features("=" * (most + 5)), features("=" * (most + 9)))
    assert told("=" * (most + 5), "equals", "comparisons") == [np.float32(most) / np.float32(most + 2)] * 2


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=100))
def test_ill_formed_bytes_are_read_within_their_ends(data):
    # Bytes lie in memory of their own size: a build with -fsanitize=address tells of a read past them.
    x = ENCODER.surface.write_bytes(data)
    assert ((x >= 0) & (x <= 1)).all()


@settings(max_examples=200, deadline=None)
@given(texts)
def test_every_feature_lies_between_0_and_1(text):
    x = features(text)
    assert x.dtype == np.float32
    assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000", "``` ```", "'\"”", "\ufeff"])
def test_a_text_without_a_character_gives_zeros(text):
    assert not features(text).any()


def test_each_column_has_a_name_of_its_own():
    names = ENCODER.feature_names
    assert len(set(names)) == len(names) == ENCODER.dim == ENCODER.lexicon.dim
    assert len(plain_columns()) == PLAIN_COLUMNS


# ---- what they are blind to


def other_case(text):
    def swapped(char):
        other = char.swapcase()
        code = ord(char)
        known = code < 0x80 or lowered(code) != code or any(lowered(c) == code for c in map(ord, other))
        return other if len(other) == 1 and known and lowered(ord(other)) == lowered(code) else char

    return "".join(char.swapcase() if char.isascii() else swapped(char) for char in text)


def wide(text):
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def other_space(text):
    return " \n" + re.sub(r"\s+", "\u2003\n\t", text) + "\u00a0 "


def curly(text):
    return text.replace('"', "”").replace("'", "‘")


def fenced(text):
    return f"```markdown\n{text}\n```"


def twice_fenced(text):
    return f"\n~~~~\n```c++\n{text}\n```\n~~~~"


EDITS = (other_case, wide, other_space, curly, fenced, twice_fenced)


@settings(max_examples=150, deadline=None)
@given(texts, st.permutations(EDITS).map(lambda edits: edits[:3]))
def test_case_width_space_quotes_and_fences_change_nothing(text, edits):
    edited = text
    for edit in edits:
        edited = edit(edited)
    assert same_bits(features(edited), features(text))


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_of_every_script_changes_nothing(edit):
    for text in SCRIPTS:
        assert same_bits(features(edit(text)), features(text))


LETTER_STYLES = ("{}) ", "({}) ", "{}. ", "{}: ")
NUMBER_STYLES = ("{}. ", "{}) ", "({}) ")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.text("ab c7.,'\"-$é日\n", max_size=12), min_size=1, max_size=10),
    st.lists(st.text("ab c7.,é\n", max_size=12), max_size=12),
    texts,
    st.integers(0, 23),
)
def test_how_items_are_marked_changes_nothing(options, steps, stem, way):
    def written(letter, number, upper):
        marks = [letter.format(chr((65 if upper else 97) + k)) for k in range(len(options))]
        lines = [mark + said for mark, said in zip(marks, options, strict=True)]
        return "\n".join([stem, *lines, *(number.format(k + 1) + said for k, said in enumerate(steps))])

    plain = written(LETTER_STYLES[0], NUMBER_STYLES[0], True)
    other = written(LETTER_STYLES[way % 4], NUMBER_STYLES[way // 8], bool(way & 4))
    assert same_bits(features(other), features(plain))


def test_lower_case_is_that_of_unicode_where_it_is_one_letter():
    for code in [*range(0xC0, 0x530), *range(0x1E00, 0x1F00)]:
        if lowered(code) != code:
            assert chr(lowered(code)) in (chr(code).lower(), "σ")


# ---- what they tell


def test_options_are_counted_in_order_and_measured():
    text = "Which is right? A) 12 B) -3 C) none D) $4"
    counts = surface_counts(text, ENCODER.lexicon)
    assert (counts["letter_markers"], counts["numeric_markers"], counts["marker_gaps"]) == (4, 3, 3)
    assert (counts["stem_characters"], counts["gap_characters"]) == (13, 8)
    assert told("b) first d) then", "letter_markers") == [0.0]  # no list begins there


def test_a_number_that_ends_a_sentence_is_no_marker():
    assert surface_counts("It is 17. Then 5.", ENCODER.lexicon)["numbers"] == 2


def test_words_of_scripts_without_spaces_are_estimated():
    assert surface_counts("日本語です", ENCODER.lexicon)["words"] == 3
    assert surface_counts("สวัสดีครับ", ENCODER.lexicon)["words"] == 2
    assert told("日本", "han_share", "ascii_share") == [1.0, 0.0]


def test_the_first_word_and_the_last_asking_one_are_told():
    assert told("Explain it. What?", "first_explain", "first_question", "last_question", "last_explain") == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("decimals", "3.14"),
        ("grouped_digits", "1,000"),
        ("snake_names", "a_b"),
        ("blanks", "is ____ here"),
        ("ellipses", "so …"),
        ("urls", "http://a"),
        ("commands", "\\frac"),
        ("calls", "f(x)"),
        ("arrows", "a -> b"),
        ("comparisons", "a == b"),
        ("mails", "a@b"),
        ("percentages", "5%"),
        ("amounts", "$5"),
        ("signs", "-5"),
        ("math", "∑"),
        ("currency", "€5"),
        ("years", "in 1999"),
        ("of_code", "def"),
    ],
)
def test_a_form_is_counted(name, text):
    assert told(text, name)[0] > 0
    assert told("nothing of it here", name) == [0.0]


# ---- as an encoder


def test_features_have_no_bill():
    encoded = ENCODER.encode(["What?", ""])
    assert encoded.billed_tokens.tolist() == [0, 0]
    assert not encoded.truncated.any()
    with pytest.raises(InvalidInputError, match="count no tokens"):
        ENCODER.count_tokens("What?")
    with pytest.raises(InvalidInputError, match=r"prompts\[1\]: expected Unicode text"):
        ENCODER.encode(["a", "\ud800"])


def test_the_identity_is_of_the_lexicon(tmp_path):
    other = tmp_path / "other.json"
    other.write_bytes(DEFAULT_LEXICON.read_bytes().replace(b'"whose"', b'"whither"'))
    assert SurfaceEncoder.load(other).identity != ENCODER.identity == SurfaceEncoder.load().identity


def test_the_tables_of_the_extension_are_those_of_the_definition():
    tool = runpy.run_path(str(ROOT / "csrc/tools/make_surface_tables.py"))
    assert tool["INC"].read_text() == tool["written"]()
    assert [first for first, _ in BREAKS] == sorted({first for first, _ in BREAKS})
    assert symbols_of("Aé\u3000")[0] == bytes([ord("a"), 0x80 | 0x69, 0x20])
