"""Edits of prompts: each changes a prompt, and asks for nothing else."""

from ipr_engine.data.prompt_edits import EDITS, MATHS, SAME_WORDS

PROMPT = 'Please calculate 2 + 2 for the "Sum".\n\nA) Three\nB) Four\n1. It\'s easy\n2. It is not\n\nWhich is correct?'


def test_every_edit_changes_a_prompt_and_asks_the_same():
    assert len(EDITS) == 9
    for name, edit in EDITS.items():
        assert edit(PROMPT) != PROMPT, name
        assert edit("") is not None
    assert EDITS["white space collapsed"](PROMPT).count("\n") == 0
    assert "(A) Three" in EDITS["numbering style"](PROMPT)
    assert "1) It" in EDITS["numbering style"](PROMPT)
    assert "“Sum”" in EDITS["curly quotes"](PROMPT)
    assert "Please work out 2 + 2" in EDITS["paraphrased instructions"](PROMPT)
    assert EDITS["full width"]("a 1") == "ａ １"


def test_no_word_is_replaced_by_one_that_is_replaced():
    for word in SAME_WORDS.values():
        assert not set(word.split()) & set(SAME_WORDS), word


def test_the_sentence_behind_a_prompt_has_thirteen_words():
    assert len(MATHS.split()) == 13
    assert MATHS.startswith(" ")


def test_a_letter_is_an_items_mark_where_those_before_it_have_stood():
    edit = EDITS["numbering style"]
    assert (
        edit("Say A, B, C, or D. No more.\nA: x\nB. y\nC) z\nD: w")
        == "Say A, B, C, or D. No more.\n(A) x\n(B) y\n(C) z\n(D) w"
    )
    assert edit("What did B. Franklin say? a) this b) that") == "What did B. Franklin say? (A) this (B) that"
    assert edit("I. e. nothing") == "I. e. nothing"
