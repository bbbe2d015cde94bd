"""Logs with something else in any one place are read or refused: no bare exception, and no text of a prompt in what is told."""

from __future__ import annotations

import copy
import json
import random

import pytest

from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import LOGS, write_lines

FILES = {path.stem: path for path in sorted(LOGS.glob("*.jsonl"))}
LAYOUTS = {name: "litellm" if name.startswith("litellm") else "opentelemetry" for name in FILES}
WRONG = [None, True, -1, 1e300, 10**30, "", "{", "[1]", "plain", [], [None], {}, {"a": [{}]}, "\ud800", [[[[]]]]]
SECRETS = ("17 * 23", "Capital of France", "Paris?", "Faust", "Say hi", "This one fails", "a page of it")


def places(value, path=()):
    """Every place in a JSON value, as keys and indices from its top."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def changed(record, path, value):
    record = copy.deepcopy(record)
    at = record
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return record


@pytest.mark.parametrize("name", FILES)
def test_any_change_of_a_log_is_read_or_refused(tmp_path, name):
    chance = random.Random(name)
    records = [json.loads(line) for line in FILES[name].read_text().splitlines()]
    spots = [(number, path) for number, record in enumerate(records) for path in places(record) if path]
    spoilt = [
        changed(records[number], path, chance.choice(WRONG))
        for number, path in chance.sample(spots, min(len(spots), 250))
    ]
    report = SourceReport()
    file = write_lines(tmp_path / "log.jsonl", [*records, *spoilt])
    source = PromptSource(path=str(file), layout=LAYOUTS[name], skip_bad_rows=True)
    try:
        found = list(read_questions(source, report=report))
    except InvalidInputError as error:  # spans of earlier conventions hold no messages
        assert name == "genai_spans_of_1_28"
        told = [str(error)]
    else:
        assert found
        told = [*report.lines, *report.bad._found.values()]  # noqa: SLF001  all of them, not the ten that are shown
        for question in found:
            json.dumps(question.body, allow_nan=False, ensure_ascii=False).encode()
    assert not [line for line in told for secret in SECRETS if secret in line]


@pytest.mark.parametrize("name", FILES)
def test_a_log_cut_anywhere_is_read_or_refused(tmp_path, name):
    chance = random.Random(name)
    whole = FILES[name].read_bytes()
    for _ in range(12):
        file = tmp_path / "log.jsonl"
        file.write_bytes(whole[: chance.randrange(1, len(whole))])
        try:
            list(read_questions(PromptSource(path=str(file), layout=LAYOUTS[name])))
        except InvalidInputError as error:
            assert not [secret for secret in SECRETS if secret in str(error)]  # noqa: PT017  it may not be raised
