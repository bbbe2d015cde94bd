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
