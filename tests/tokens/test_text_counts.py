"""What a text is made of: every term against its definition in plain Python, whatever the length and the bytes."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import _C, InvalidInputError
from ipr_engine._C import TEXT_TERMS as TERMS
from ipr_engine._C import count_texts
from ipr_engine.decide.contract import available_isas
from ipr_engine.tokens.token_profile import PARTS, terms_apart
from tests.support.places import ROOT
from tests.support.wordpieces import SCRIPTS

CSRC = ROOT / "csrc"
PUNCTUATION = r"[!-/:-@\[-`{-~]"
LATIN = "A-Za-z\u00c0-\u024f\u1e00-\u1eff"
RANGES = {  # first code point, end; the first that holds a code point wins
    "accented": [(0xC0, 0x250)],
    "latin_additional": [(0x1E00, 0x1F00)],
    "greek": [(0x370, 0x400), (0x1F00, 0x2000)],
    "cyrillic": [(0x400, 0x450)],
    "cyrillic_other": [(0x450, 0x530)],
    "armenian": [(0x530, 0x590)],
    "hebrew": [(0x590, 0x600)],
    "arabic": [(0x600, 0x700), (0x750, 0x780), (0xFB50, 0xFE00), (0xFE70, 0xFF00)],
    "devanagari": [(0x900, 0x980)],
    "indic": [(0x980, 0xE00)],
    "thai": [(0xE00, 0xF00)],
    "georgian": [(0x10A0, 0x1100)],
    "hangul": [(0x1100, 0x1200), (0xAC00, 0xD7B0)],
    "kana": [(0x3040, 0x3100)],
    "han": [(0x3400, 0xA000), (0xF900, 0xFB00)],
    "wide_punctuation": [(0x3000, 0x3040), (0xFF00, 0xFFF0)],
    "general_punctuation": [(0x2000, 0x2070)],
    "other_2": [(0x80, 0x800)],
    "other_3": [(0x800, 0x10000)],
    "other_4": [(0x10000, 0x110000)],
}

PART_RANGES = {
    "emoji": [(0x1F000, 0x1F1E6), (0x1F200, 0x1F3FB), (0x1F400, 0x1F900)],
    "late_emoji": [(0x1F900, 0x1FB00)],
    "skin_tones": [(0x1F3FB, 0x1F400)],
    "flag_letters": [(0x1F1E6, 0x1F200)],
    "styled_letters": [(0x1D400, 0x1D800)],
    "rare_han": [(0x20000, 0x40000)],
    "pictographs": [(0x2300, 0x2400), (0x2600, 0x27C0), (0x2B00, 0x2C00)],
    "variation_selectors": [(0xFE00, 0xFE10)],
}
LONG = {  # of runs of one character, beyond the fourth
    "long_punctuation": PUNCTUATION,
    "long_letters": "[A-Za-z]",
    "long_controls": "[\t\x0b\x0c\r]",
    "long_line_breaks": "\n",
}


def letter_pair_table():
    source = (CSRC / "src/simd/text_counts_pairs.inc").read_text()
    return [list(map(int, row.split(","))) for row in re.findall(r"\{([\d, ]+)\}", source)]


PAIRS = letter_pair_table()


def script(char):
    code = ord(char)
    found = (name for name, ranges in RANGES.items() if any(first <= code < end for first, end in ranges))
    return None if code < 0x80 else next(found)


def count_ref(text):
    """Every term by its definition in csrc/include/ipr/text_terms.h."""
    terms = dict.fromkeys(TERMS, 0.0)

    def count(name, pattern):
        terms[name] = float(len(re.findall(pattern, text)))

    words = [len(word.encode()) for word in re.findall(f"[{LATIN}]+", text)]
    terms["words"] = len(words)
    terms["beyond_4"], terms["beyond_8"] = (sum(max(0, size - most) for size in words) for most in (4, 8))
    codes = [0, *(byte & 31 if chr(byte).isascii() and chr(byte).isalpha() else 0 for byte in text.encode()), 0]
    terms["letter_pairs"] = sum(PAIRS[a][b] for a, b in zip(codes, codes[1:], strict=False)) / 255
    count("capitals", "[A-Z]")
    count("capital_pairs", "(?<=[A-Z])[A-Z]")
    count("camel", "(?<=[a-z])[A-Z]")
    count("digits", "[0-9]")
    count("digit_runs", "[0-9]+")
    count("beyond_3_digits", "(?<=[0-9]{3})[0-9]")
    count("spaced_numbers", "(?<= )[0-9]")
    count("punctuation", PUNCTUATION)
    count("punctuation_runs", f"{PUNCTUATION}+")
    terms["repeated"] = sum(
        a == b and re.match(PUNCTUATION, a) is not None for a, b in zip(text, text[1:], strict=False)
    )
    count("after_punctuation", f"(?<={PUNCTUATION})[A-Za-z]")
    count("line_breaks", "\n+")
    count("controls", "[\t\x0b\x0c\r]")
    count("spaces", "(?<= ) ")
    count("space_runs", "  +")
    for name, ranges in PART_RANGES.items():
        terms[name] = sum(any(first <= ord(char) < end for first, end in ranges) for char in text)
    same = [run.group() for run in re.finditer(r"(?s)(.)\1{4,}", text)]
    for name, kind in LONG.items():
        terms[name] = sum(len(run) - 4 for run in same if re.match(kind, run))
    terms["long_letter_pairs"] = (
        sum((len(run) - 4) * PAIRS[ord(run[0]) & 31][ord(run[0]) & 31] for run in same if re.match("[A-Za-z]", run))
        / 255
    )
    before = None
    for char in text:
        name = script(char)
        if name is not None:
            terms[name] += 1
            if f"{name}_words" in terms and name != before:
                terms[f"{name}_words"] += 1
        before = name
    return np.array([terms[name] for name in TERMS])


def assert_counted(texts):
    first, *others = [count_texts(texts, isa) for isa in available_isas()]
    for text, counted in zip(texts, first, strict=True):
        np.testing.assert_allclose(counted, count_ref(text), rtol=1e-12, err_msg=repr(text))
    for other in others:
        assert other.tobytes() == first.tobytes()


ALPHABET = "".join(SCRIPTS.values()) + "aZ09 .,  \n\n--_ThequickBROWN🙂ըანไทยবাংলাÄßệ"
PARTED = "👍🏽|👩🏿‍💻|🇩🇪|❤️|🥹|⌚|⬇️|🏳️‍🌈|🉐|🎿|🐀|🀄|🫸|🬀|🆎|🈁|1️⃣|☀|𝒜|𝟿|𠮷|\U0001d800|\U0003ffff|\U00040000|ok"
runs = st.builds(lambda char, size: char * size, st.sampled_from("=-aZz \n\t\r\x0b9é漢😀\0"), st.integers(1, 140))
texts = (
    st.text(st.sampled_from(ALPHABET), max_size=200)
    | st.text(max_size=120)
    | st.lists(st.sampled_from(PARTED.split("|")) | runs | st.text(max_size=3), max_size=20).map("".join)
)


@settings(max_examples=300, deadline=None)
@given(texts)
def test_every_term_is_as_defined(text):
    assert_counted([text])


@pytest.mark.parametrize(
    "unit",
    ["a", "ab ", "Ab1", "é", "ệ", "я", "я ", "漢字", "🙂", "👍🏽🇩🇪❤️", "  ", "--", "\n", "\t", "9", "aé", "한국 "],
)
def test_runs_that_cross_a_window_of_64_bytes_are_one(unit):
    assert_counted([(unit * 140)[:size] for size in range(1, 140)])


@settings(deadline=None)
@given(texts)
def test_parts_of_a_term_have_no_character_in_common(text):
    """Pairs of letters are 255ths: what is left of them may be off by the last bit."""
    assert (terms_apart(count_texts([text])) >= -1e-9).all()


def test_a_part_comes_behind_its_whole():
    """The sum over terms is in their order: what a part adds must not move the sums before it."""
    assert min(map(TERMS.index, PARTS)) > max(map(TERMS.index, PARTS.values()))


def test_a_nul_byte_counts_as_nothing():
    counted = dict(zip(TERMS, count_texts(["a\0b"])[0], strict=True))
    assert counted["words"] == 2
    assert sum(value for name, value in counted.items() if name not in ("words", "letter_pairs")) == 0


def test_the_texts_of_a_request_add_up():
    parts = ["You are terse.", "", "Съешь ещё\n", '{"type": "object"}', "naïve 東京 12345"]
    apart = count_texts(parts)
    np.testing.assert_array_equal(apart.sum(axis=0), sum(count_texts([part])[0] for part in parts))
    assert not apart[1].any()


def test_terms_are_told_by_name_and_letters_of_every_script_have_one():
    assert len(set(TERMS)) == len(TERMS) == count_texts([""]).shape[1]
    assert all(script(chr(code)) for code in range(0x80, 0x3000) if unicodedata.category(chr(code)).startswith("L"))


def test_an_unknown_instruction_set_is_refused_by_name():
    with pytest.raises(InvalidInputError, match="isa: expected auto, scalar, avx2 or avx512, got sse9"):
        count_texts(["a"], "sse9")


@pytest.mark.parametrize("bad", ["one text", [1], [None], ["fine", "\ud800"]])
def test_what_is_no_text_is_refused_by_place(bad):
    with pytest.raises(InvalidInputError, match="texts"):
        _C.count_texts(bad)


def test_a_long_text_is_counted_whole():
    assert count_texts(["word " * 300_000])[0][TERMS.index("words")] == 300_000
