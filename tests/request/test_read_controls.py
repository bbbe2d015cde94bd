"""What a request says of its own decision is read, or refused by its name."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import pytest

from ipr_engine import InvalidInputError
from ipr_engine.policy.policy_spec import ABOUT, DEFAULTS, POLICY_CONTROLS
from ipr_engine.request.controls import (
    EVERY_CONTROL,
    NO_CONTROLS,
    Controls,
    read_controls,
)
from ipr_engine.request.route_request import REQUEST_OPTIONS
from ipr_engine.request.wrong_control import WrongControlError

FIELD = "metadata.ipr"
# of each form: a header's text, and the value that it means
SAID: dict[str | None, tuple[str, Any]] = {
    "number": ("0.25", 0.25),
    "number or infinity": ("inf", math.inf),
    "candidates": ("small, large", ["small", "large"]),
    "names": ("vision,tools", ["vision", "tools"]),
    "text": ("path", "path"),
    "candidate": ("best", "best"),
    "flag": ("true", True),
}


def read(headers: dict[str, str] | None = None, field: object = None, accepted: Any = EVERY_CONTROL) -> Controls:
    return read_controls((headers or {}).items(), [(FIELD, field)], accepted)


@pytest.mark.parametrize("name", [name for name in POLICY_CONTROLS if ABOUT[name].form != "weights"])
def test_every_option_is_a_header_and_a_field_of_the_same_meaning(name):
    text, value = SAID[ABOUT[name].form]
    header = f"X-IPR-{name.replace('_', '-').title()}"
    by_header, by_field = read({header: f" {text} ", "accept": "*/*"}), read(field={name: value})
    assert by_header.policy == {name: value} == by_field.policy
    assert by_header.where == {name: header.lower()}
    assert by_field.where == {name: f"{FIELD}.{name}"}


def test_what_candidates_cost_and_do_is_no_requests_to_say():
    assert {*DEFAULTS} - {*POLICY_CONTROLS} == {"prices", "performance"}


def test_the_json_of_an_object_is_read_as_the_object():
    field = {
        "tau": 0.5,
        "cost_weights": {"usd": 2},
        "tokens_in": {"small": 7},
        "escalate_below": "infinity",
        "explain": True,
    }
    controls = read(field=json.dumps(field))
    assert controls == read(field=field)
    assert controls.policy == {"tau": 0.5, "cost_weights": {"usd": 2}, "escalate_below": math.inf}
    assert (controls.given, controls.explain) == ({"tokens_in": {"small": 7}}, True)


def test_places_are_read_together():
    controls = read_controls([("x-ipr-tau", "1")], [("", {"allowed": "small"}), ("ipr", {"exclude": ["a"]})])
    assert controls.where == {"tau": "x-ipr-tau", "allowed": "allowed", "exclude": "ipr.exclude"}
    assert controls.policy == {"tau": 1.0, "allowed": ["small"], "exclude": ["a"]}


@pytest.mark.parametrize("field", [None, {}, "{}", "null", {"tau": None}, {"exclude": []}, '{"tau": null}'])
def test_nothing_said_is_nothing(field):
    assert read({"x-request-id": "1", "xipr-tau": "1"}, field) is NO_CONTROLS


DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("headers", "field", "control"),
    [
        ({"x-ipr-tau": ""}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "low"}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "inf"}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "nan"}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "1_0"}, None, "x-ipr-tau"),
        ({"x-ipr-escalate-below": "-inf"}, None, "x-ipr-escalate-below"),
        ({"x-ipr-batch": "maybe"}, None, "x-ipr-batch"),
        ({"x-ipr-prices": "a=1,2"}, None, "x-ipr-prices"),
        ({"x-ipr-quality_share": "1"}, None, "x-ipr-quality_share"),
        ({"x-ipr-cost-weights": "usd=1"}, None, "x-ipr-cost-weights"),
        ({"x-ipr-allowed": " , "}, None, "x-ipr-allowed"),
        ({"x-ipr-": "1"}, None, "x-ipr-"),
        ({"x-ipr-tau": "0.1", "X-IPR-Tau": "0.1"}, None, "x-ipr-tau"),
        ({"x-ipr-explain": "1", "X-IPR-Explain": "1"}, None, "x-ipr-explain"),
        ({"x-ipr-tau": "0.1"}, {"tau": 0.1}, "metadata.ipr.tau"),
        ({"x-ipr-tau": "0.1"}, {"preset": "cost"}, "metadata.ipr.preset"),
        ({}, {"tau": True}, "metadata.ipr.tau"),
        ({}, {"tau": "0.1"}, "metadata.ipr.tau"),
        ({}, {"tau": DEEP}, "metadata.ipr.tau"),
        ({}, {"tau": 10**400}, "metadata.ipr.tau"),
        ({}, {"allowed": {"small": 1}}, "metadata.ipr.allowed"),
        ({}, {"allowed": []}, "metadata.ipr.allowed"),
        ({}, {"allowed": DEEP}, "metadata.ipr.allowed"),
        ({}, {"batch": 1}, "metadata.ipr.batch"),
        ({}, {"rule": 1}, "metadata.ipr.rule"),
        ({}, {"explain": "yes"}, "metadata.ipr.explain"),
        ({}, {"tua": 0.1}, "metadata.ipr.tua"),
        ({}, {"prices": {}}, "metadata.ipr.prices"),
        ({}, [0.1], "metadata.ipr"),
        ({}, 7, "metadata.ipr"),
        ({}, "tau", "metadata.ipr"),
        ({}, '["tau"]', "metadata.ipr"),
        ({}, '{"tau": 0.1, "tau": 0.2}', "metadata.ipr"),
        ({}, '{"tokens_in": NaN}', "metadata.ipr"),
        ({}, 9999 * "[", "metadata.ipr"),
    ],
)
def test_what_is_wrong_is_named(headers, field, control):
    with pytest.raises(WrongControlError) as error:
        read(headers, field)
    assert error.value.control == control
    assert str(error.value).startswith(f"{control}: ")
    assert not error.value.forbidden
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.control, str(again), again.forbidden) == (control, str(error.value), False)


def test_a_long_or_unprintable_name_is_told_short():
    with pytest.raises(WrongControlError) as error:
        read(field={"\u2026\n" + 999 * "x": 1})
    assert str(error.value).isascii()
    assert len(error.value.control) < 100


@pytest.mark.parametrize(
    ("headers", "field"),
    [({"x-ipr-tau": "0.1"}, None), ({}, {"tau": 0.1}), ({}, {"tau": None}), ({}, {"billed_tokens": 7})],
)
def test_a_control_that_is_not_accepted_is_forbidden(headers, field):
    with pytest.raises(WrongControlError, match=r"may not be set here; what may be: allowed$") as error:
        read(headers, field, ("allowed",))
    assert error.value.forbidden
    assert pickle.loads(pickle.dumps(error.value)).forbidden


def test_what_may_be_given_of_a_prompt_is_what_a_call_takes():
    field = {**dict.fromkeys(REQUEST_OPTIONS, 7), "task": "sql"}
    assert read(field=field).given == field


def test_an_error_of_the_policy_is_told_by_the_controls_name():
    said = read({"x-ipr-tau": "2"}, {"rule": "max"})
    named = said.blamed(InvalidInputError("tau: expected [0, 1], got 2"))
    assert (named.control, str(named)) == ("x-ipr-tau", "x-ipr-tau: expected [0, 1], got 2")
    other = said.blamed(InvalidInputError("worth: not beside tau"))
    assert str(other) == "x-ipr-tau and metadata.ipr.rule: worth: not beside tau"


def test_an_error_of_a_part_is_told_by_the_controls_name():
    said = read(field={"tokens_in": {"a": "x"}})
    named = said.named_by(InvalidInputError("tokens_in['a']: expected a number"))
    assert named is not None
    assert named.control == "metadata.ipr.tokens_in['a']"
    assert said.named_by(InvalidInputError("prompt: expected text")) is None


def test_what_may_be_set_names_none_that_is_for_one_path_alone() -> None:
    with pytest.raises(WrongControlError, match="may not be set here; what may be: none"):
        read_controls([("x-ipr-tau", "0.1")], [], ("explain",))
    with pytest.raises(WrongControlError, match=r"x-ipr-cost-weights: stands in the body alone: ipr\.cost_weights"):
        read_controls([("x-ipr-cost-weights", "usd=1")], [])


@pytest.mark.parametrize("task", ["support-bot", "Übersetzung 日本"])
def test_a_task_is_a_header_of_utf8_or_a_field(task):
    as_servers_read = task.encode().decode("latin-1")
    assert read({"x-ipr-task": as_servers_read}).given == {"task": task}
    assert read({"x-ipr-task": "Übersetzung"}).given == {"task": "Übersetzung"}  # of Latin-1, or read already
    assert read(field={"task": task}).given == {"task": task}
