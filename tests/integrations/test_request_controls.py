"""What a request says of its own decision is read, or refused by its name."""

from __future__ import annotations

import pickle

import pytest

from ipr_engine import InvalidInputError
from ipr_engine.integrations.request_controls import Control, WrongControlError, blamed, controlled, read_controls

CANDIDATES = {
    "small": "gamma/small",
    "gamma/small": "gamma/small",
    "large": "alpha/large",
    "alpha/large": "alpha/large",
}


def test_headers_and_the_field_are_read_alike():
    by_header = read_controls({"X-IPR-Tau": "0.25", "X-Ipr-Allowed": "small, large", "accept": "*/*"}, None)
    by_field = read_controls({}, {"tau": 0.25, "allowed": ["small", "large"]})
    assert {name: control.value for name, control in by_header.items()} == {"tau": 0.25, "allowed": ["small", "large"]}
    assert {name: control.value for name, control in by_field.items()} == {"tau": 0.25, "allowed": ["small", "large"]}
    assert by_header["tau"].where == "x-ipr-tau"
    assert by_field["tau"].where == "metadata.ipr.tau"


def test_nothing_said_is_nothing():
    assert read_controls(None, None) == {} == read_controls({"x-request-id": "1"}, {})


@pytest.mark.parametrize(
    ("headers", "field", "control"),
    [
        ({"x-ipr-tau": ""}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "low"}, None, "x-ipr-tau"),
        ({"x-ipr-tau": "inf"}, None, "x-ipr-tau"),
        ({"x-ipr-prices": "a=1,2"}, None, "x-ipr-prices"),
        ({"x-ipr-allowed": " , "}, None, "x-ipr-allowed"),
        ({"x-ipr-": "1"}, None, "x-ipr-"),
        ({"x-ipr-tau": "0.1"}, {"tau": 0.1}, "metadata.ipr.tau"),
        ({}, {"tau": True}, "metadata.ipr.tau"),
        ({}, {"tau": "0.1"}, "metadata.ipr.tau"),
        ({}, {"allowed": {"small": 1}}, "metadata.ipr.allowed"),
        ({}, {"allowed": []}, "metadata.ipr.allowed"),
        ({}, {"tua": 0.1}, "metadata.ipr.tua"),
        ({}, [0.1], "metadata.ipr"),
    ],
)
def test_what_is_wrong_is_named(headers, field, control):
    with pytest.raises(WrongControlError) as error:
        read_controls(headers, field)
    assert error.value.control == control
    assert str(error.value).startswith(f"{control}: ")
    assert pickle.loads(pickle.dumps(error.value)).control == control


def test_a_control_that_the_operator_does_not_accept_is_wrong():
    with pytest.raises(WrongControlError, match=r"x-ipr-tau: expected a control that is accepted here \(allowed\)"):
        read_controls({"x-ipr-tau": "0.1"}, None, ("allowed",))


def test_a_request_replaces_the_aim_and_narrows_the_candidates():
    options = {"quality_share": 0.9, "exclude": ["beta/mid"], "min_support": 0.1}
    said = read_controls({"x-ipr-tau": "0.5", "x-ipr-exclude": "large", "x-ipr-allowed": "small,gamma/small"}, None)
    assert controlled(options, said, CANDIDATES) == {
        "tau": 0.5,
        "exclude": ["beta/mid", "alpha/large"],
        "allowed": ["gamma/small"],
        "min_support": 0.1,
    }
    assert options["quality_share"] == 0.9


def test_no_request_names_a_candidate_that_the_operator_does_not_allow():
    said = read_controls({"x-ipr-allowed": "small,delta/tiny"}, None)
    with pytest.raises(WrongControlError, match=r"x-ipr-allowed: unknown 'delta/tiny'; known: alpha/large"):
        controlled({"tau": 0.2}, said, CANDIDATES)


def test_an_error_of_the_policy_is_told_by_the_controls_name():
    said = {"tau": Control(2.0, "x-ipr-tau")}
    assert blamed(InvalidInputError("tau: expected [0, 1], got 2"), said).control == "x-ipr-tau"
    assert str(blamed(InvalidInputError("worth: not beside tau"), said)) == "x-ipr-tau: worth: not beside tau"
