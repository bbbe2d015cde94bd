"""LiteLLM's logs: what its callbacks get, and rows of its table of spends, as litellm itself wrote them."""

from __future__ import annotations

import csv
import json

import pytest

from ipr_engine.collection.sources import SourceReport
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import LOGS, questions, said, write_lines

PAYLOADS = [json.loads(line) for line in (LOGS / "litellm_payloads.jsonl").read_text().splitlines()]
SPENDS = [json.loads(line) for line in (LOGS / "litellm_spend_rows.jsonl").read_text().splitlines()]


def test_payloads_of_callbacks_become_questions_with_their_answers():
    report = SourceReport()
    found = questions(LOGS / "litellm_payloads.jsonl", report, skip_bad_rows=True)
    sum_, capital, weather, hello, failed, faust = found
    answer = sum_.answers["gpt-4o-mini"]
    assert (answer.text, answer.finish_reason, answer.input_tokens, answer.output_tokens) == ("391", "stop", 10, 20)
    assert answer.cost_usd == 1.35e-05
    assert answer.seconds == pytest.approx(PAYLOADS[0]["endTime"] - PAYLOADS[0]["startTime"])
    assert sum_.body == {"messages": [{"role": "user", "content": "What is 17 * 23?"}]}
    assert said(capital) == [("system", "Answer briefly."), ("user", "Capital of France?")]
    assert capital.answers["claude-sonnet-4-5"].text == "Paris"
    assert (weather.body["tools"][0]["function"]["name"], weather.body["tool_choice"]) == ("get_weather", "auto")
    assert weather.answers == {}  # tool calls alone
    assert hello.answers["gpt-4o"].text == "hi there"
    assert (failed.prompt, failed.answers) == ("This one fails", {})
    assert (faust.prompt, faust.answers["gpt-4o"].text) == ("Who wrote Faust?", "Goethe")
    assert "LiteLLM masked it (turn_off_message_logging)" in report.bad.summary


def test_an_object_a_file_as_in_a_bucket_is_read_by_folder(tmp_path):
    for number, payload in enumerate(PAYLOADS[:3]):
        (tmp_path / "2026-11-29").mkdir(exist_ok=True)
        (tmp_path / "2026-11-29" / f"time-{number}.json").write_text(json.dumps(payload, indent=number or None))
    assert [q.prompt for q in questions(tmp_path)] == ["What is 17 * 23?", "Capital of France?", "Weather in Paris?"]


def test_rows_of_spends_become_questions_and_a_cut_prompt_is_refused(tmp_path):
    file = LOGS / "litellm_spend_rows.jsonl"
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    assert "row 3: the request is not whole: LiteLLM cut it" in str(found.value)
    first, second = questions(file, skip_bad_rows=True)
    assert first.answers["gpt-4o-mini"].seconds == pytest.approx(0.093, abs=0.001)
    assert first.answers["gpt-4o-mini"].cost_usd == 1.35e-05
    assert said(second)[0] == ("system", [{"type": "text", "text": "Answer briefly."}])  # of Anthropic Messages
    with open(tmp_path / "spends.csv", "w", newline="") as out:
        writer = csv.DictWriter(out, list(SPENDS[0]))
        writer.writeheader()
        writer.writerows(SPENDS[:2])
    assert questions(tmp_path / "spends.csv") == [first, second]


def test_spends_without_prompts_are_told(tmp_path):
    file = write_lines(tmp_path / "s.jsonl", [{**SPENDS[0], "proxy_server_request": "{}"}])
    with pytest.raises(InvalidInputError, match="store_prompts_in_spend_logs"):
        questions(file)


def test_rows_of_earlier_releases_hold_their_messages(tmp_path):
    row = {**SPENDS[0], "proxy_server_request": "{}", "messages": SPENDS[0]["proxy_server_request"]}
    assert questions(write_lines(tmp_path / "s.jsonl", [row]))[0].prompt == "What is 17 * 23?"


def test_an_answer_from_the_cache_cost_nothing_that_tells_of_its_model(tmp_path):
    file = write_lines(tmp_path / "s.jsonl", [{**PAYLOADS[0], "cache_hit": True}])
    answer = questions(file)[0].answers["gpt-4o-mini"]
    assert (answer.text, answer.cost_usd, answer.seconds) == ("391", None, None)


@pytest.mark.parametrize("wrong", [float("nan"), "many", [1], {}, -1, True, 10**400])
def test_figures_that_are_none_count_as_not_logged(tmp_path, wrong):
    row = {**PAYLOADS[0], "response_cost": wrong, "prompt_tokens": wrong, "endTime": wrong}
    file = write_lines(tmp_path / "s.jsonl", [json.dumps(row).replace("NaN", "1e999")])
    answer = questions(file)[0].answers["gpt-4o-mini"]
    assert (answer.cost_usd, answer.seconds, answer.input_tokens) == (None, None, 10)


def test_models_of_the_log_are_named_as_the_candidates(tmp_path):
    file = write_lines(tmp_path / "s.jsonl", PAYLOADS[:1])
    assert list(questions(file, models={"gpt-4o-mini": "small"})[0].answers) == ["small"]


def test_calls_that_are_no_chat_are_counted(tmp_path):
    report = SourceReport()
    file = write_lines(tmp_path / "s.jsonl", [PAYLOADS[0], {**PAYLOADS[1], "call_type": "aembedding"}])
    assert len(questions(file, report)) == 1
    assert report.lines == ["LiteLLM calls that are no chat: 'aembedding'"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"call_type": "anthropic_messages"}, "may lack its system prompt"),
        ({"call_type": "aresponses", "response": {}}, "may lack its instructions"),
        ({"messages": None}, "holds no messages"),
        (
            {"model_parameters": {"tools": [{"name": "json_tool_call", "input_schema": {}}]}},
            "logged a response_format as",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image_url",
                                "image_url": {"url": "data:image/png;base64,[base64_data truncated: 2.00MB]"},
                            }
                        ],
                    }
                ]
            },
            "LiteLLM cut a file or image out",
        ),
        ({"proxy_server_request": '{"messages": [{"role": '}, "expected JSON in proxy_server_request"),
        (
            {
                "call_type": "aresponses",
                "response": {"output": [], "instructions": None, "previous_response_id": "resp_1"},
            },
            "previous_response_id: continues a conversation",
        ),
    ],
)
def test_what_litellm_did_not_log_whole_is_refused(tmp_path, changed, told):
    with pytest.raises(InvalidInputError, match=told):
        questions(write_lines(tmp_path / "s.jsonl", [{**PAYLOADS[0], **changed}]))


def test_a_prompt_about_the_marks_of_litellm_is_whole(tmp_path):
    text = "What does litellm_truncated mean, and redacted-by-litellm, and [image omitted] in a line?"
    row = {**PAYLOADS[0], "messages": [{"role": "user", "content": text}]}
    assert questions(write_lines(tmp_path / "s.jsonl", [row]))[0].prompt == text
