"""What a collection passes on shows no text of a prompt, a reference or an answer where it is printed."""

from __future__ import annotations

import pytest

from ipr_engine.collection.calls import Call
from ipr_engine.collection.gradable import Gradable
from ipr_engine.collection.question import LoggedAnswer, Question
from ipr_engine.collection.reply import Answered
from ipr_engine.collection.sources.asked_row import AskedRow
from ipr_engine.collection.sources.chat_body import chat_body
from ipr_engine.collection.sources.ordered_sources import Placed
from ipr_engine.collection.sources.source_records import SourceRecord
from ipr_engine.grading.grade import AnswerToGrade

SECRET = "a secret text"
BODY = {"messages": [{"role": "user", "content": SECRET}]}
LOGGED = LoggedAnswer(text=SECRET)
TO_GRADE = AnswerToGrade(prompt=SECRET, body=BODY, answer=SECRET, reference=SECRET)
ROW = AskedRow(request=BODY, reference=[SECRET], answers={"small": LOGGED})


@pytest.mark.parametrize(
    "one",
    [
        LOGGED,
        Question(prompt_id="q1", prompt=SECRET, body=BODY, reference=SECRET, answers={"small": LOGGED}),
        ROW,
        Placed(0, "prompts.jsonl, row 1", ROW),
        SourceRecord(1, {"prompt": SECRET}),
        chat_body(BODY),
        Call(key=b"k", candidate="small", body=BODY, most=1, most_tokens=1),
        Answered(text=SECRET, finish_reason="stop", usage=None),
        TO_GRADE,
        Gradable(key=b"k", question=1, candidate="small", sample=0, reference=SECRET, answer=TO_GRADE),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_holds_texts_does_not_show_them(one):
    assert SECRET not in repr(one)
    assert SECRET not in f"{one}"
