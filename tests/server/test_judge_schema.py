"""A judge's schema is filled wherever its enum of candidates lies, within the bounds that its other fields have."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from tests.support import skips

pytest.importorskip("uvicorn", reason=skips.SERVE)
from ipr_engine.server.judge_schema import filled
from ipr_engine.server.refused import RefusedError

NAMES = ("big", "small", "tiny")
WHO = {"type": "string", "enum": ["big", "SMALL"]}
DEFS = {"Who": {"title": "Who", **WHO}, "Same": {"$ref": "#/$defs/Who"}, "a/b~c d": WHO}


def made(part: Any, required: bool = True, **more: Any) -> Any:
    """Return what fills the field `who` of a schema with `big`."""
    schema = {"type": "object", "properties": {"who": part, **more}, "required": [*more], "$defs": DEFS}
    schema["required"] += ["who"] if required else []
    choices, fill = filled(schema, NAMES)
    assert choices == ["big", "SMALL"]
    return fill("big", "why")


PLACES: list[tuple[Any, Any]] = [
    (WHO, "big"),
    ({"$ref": "#/$defs/Who"}, "big"),
    ({"$ref": "#/$defs/Same", "description": "pydantic writes such"}, "big"),
    ({"$ref": "#/$defs/a~1b~0c%20d"}, "big"),
    ({"allOf": [{"$ref": "#/$defs/Who"}], "default": "SMALL"}, "big"),
    ({"allOf": [{"type": "string"}, WHO]}, "big"),
    ({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Who"}]}, "big"),
    ({"oneOf": [{"type": "integer"}, {"anyOf": [{"type": "null"}, WHO]}]}, "big"),
    ({"type": ["string", "null"], "enum": ["big", "SMALL", None]}, "big"),
    ({"type": "array", "items": {"$ref": "#/$defs/Who"}}, ["big"]),
    ({"type": "array", "items": WHO, "minItems": 2}, ["big", "big"]),
    ({"type": "object", "properties": {"deep": {"$ref": "#/$defs/Who"}}}, {"deep": "big"}),
    ({"anyOf": [{"properties": {"a": WHO}}, {"properties": {"b": WHO}}]}, {"a": "big"}),
    ({"type": "object", "properties": {"a": WHO}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": "big"}),
]


@pytest.mark.parametrize(("part", "expected"), PLACES, ids=str)
@pytest.mark.parametrize("required", [True, False])
def test_the_enum_is_found_and_filled(part: Any, expected: Any, required: bool) -> None:
    assert made(part, required) == {"who": expected}


FIELDS: list[tuple[Any, Any]] = [
    ({"type": "string"}, "why"),
    ({"type": "string", "minLength": 5}, "why.."),
    ({"type": "string", "maxLength": 2}, "wh"),
    ({"type": "integer"}, 0),
    ({"type": "integer", "minimum": 1, "maximum": 5}, 1),
    ({"type": "integer", "exclusiveMinimum": 1}, 2),
    ({"type": "integer", "maximum": -3}, -3),
    ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
    ({"type": "integer", "minimum": 0.5}, 1),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, 0.5),
    ({"type": "number", "minimum": 0.25}, 0.25),
    ({"type": "number", "minimum": 0.55, "multipleOf": 0.1}, 0.8),  # of 0.6 and 0.7 a validator that divides says no
    ({"type": "number", "minimum": 0.55, "maximum": 0.65, "multipleOf": 0.1}, 0.6),
    ({"type": "number", "exclusiveMaximum": -3e-7, "multipleOf": 1e-7}, -4e-7),
    ({"type": "integer", "minimum": 1, "multipleOf": 0.4}, 2),
    ({"type": "string", "minLength": 5.0, "maxLength": 1e300}, "why.."),
    ({"type": "string", "minLength": -(2**63)}, "why"),
    ({"type": "boolean"}, False),
    ({"type": "null"}, None),
    ({"const": 3}, 3),
    ({"enum": ["x", "y"]}, "x"),
    ({"type": "string", "default": "as said", "format": "email"}, "as said"),
    ({"type": ["null", "string"]}, None),
    ({"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}, None),
    ({"type": "array", "items": {"type": "string"}}, []),
    ({"type": "array", "items": {"type": "integer", "minimum": 2}, "minItems": 2}, [2, 2]),
    ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2}, [1, 2]),
    ({"type": "object"}, {}),
    ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["b"]}, {"b": "why"}),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 4}}}]}, {"a": 4}),
    ({}, None),
    (True, None),
]  # fmt: skip


@pytest.mark.parametrize(("field", "expected"), FIELDS, ids=str)
def test_another_field_gets_what_it_allows(field: Any, expected: Any) -> None:
    found = made(WHO, other=field)
    assert found == {"who": "big", "other": expected}
    assert type(found["other"]) is type(expected)


DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
RECURSIVE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}
REFUSED: list[tuple[Any, str]] = [
    ({"type": "string", "pattern": "^x"}, "other has pattern"),
    ({"type": "string", "format": "date-time"}, "other has format"),
    ({"type": "string", "minLength": 10**9}, "wants a text"),
    ({"type": "array", "items": {"type": "null"}, "minItems": 10**9}, "wants a list"),
    ({"type": "array", "minItems": 2, "uniqueItems": True}, "wants a list"),
    ({"type": "integer", "minimum": 2, "maximum": 1}, "wants a number"),
    ({"type": "integer", "minimum": 1e300}, "wants a number"),
    ({"type": "object", "properties": {"deep": False}, "required": ["deep"]}, "other.deep allows nothing"),
    ({"$ref": "https://example.org/schema"}, "$ref to a part of the schema itself"),
    ({"$ref": "#/$defs/Nobody"}, "$ref to a part of the schema itself"),
    ({"$ref": 7}, "$ref"),
    ({"$ref": "#/properties/other"}, "refers to itself"),
    ({"anyOf": [{"$ref": "#/properties/other"}]}, "refers to itself"),
    ({"$defs": {"Node": 1}, **RECURSIVE}, "$ref"),
    ({"anyOf": []}, "no alternative"),
    ({"anyOf": [False]}, "has not"),
    ({"$ref": []}, "expected a text as $ref"),
    ({"$ref": {}}, "expected a text as $ref"),
    ({"$ref": "#/required/" + "9" * 4000}, "$ref to a part of the schema itself"),
    ({"$ref": "#/required/" + "9" * 5000}, "expected a $ref of at most 4096 characters"),
    ({"const": DEEP}, "too deep"),
]


@pytest.mark.parametrize(("field", "said"), REFUSED, ids=lambda one: str(one)[:64])
def test_what_is_not_made_up_is_refused_where_it_is_required_alone(field: Any, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        made(WHO, other=field)
    assert (caught.value.status, caught.value.param) == (400, "response_format")
    assert said in caught.value.message


def test_an_optional_field_may_ask_for_anything() -> None:
    schema = {"properties": {"who": WHO, "when": {"type": "string", "format": "date"}}, "required": ["who"]}
    assert filled(schema, NAMES)[1]("big", "why") == {"who": "big"}


@pytest.mark.parametrize(
    ("schema", "count"),
    [
        ({"properties": {"who": {"enum": ["big", "other"]}}}, "none"),
        ({"properties": {"who": {"enum": []}, "why": {"enum": [None]}}}, "none"),
        ({"properties": {"a": {"$ref": "#/$defs/W"}, "b": {"$ref": "#/$defs/W"}}, "$defs": {"W": WHO}}, "2 of them"),
        ({"properties": {"a": {"$ref": "#"}}}, "none"),
    ],
    ids=str,
)
def test_one_enum_of_candidates_is_expected(schema: Any, count: str) -> None:
    with pytest.raises(RefusedError, match=f"one enum of candidates .*, got {count}"):
        filled(schema, NAMES)


def tree(depth: int, key: str) -> Any:
    return {key: [tree(depth - 1, key)]} if depth else WHO


@pytest.mark.parametrize("key", ["anyOf", "allOf", "items"])
def test_a_schema_that_is_deep_ends(key: str) -> None:
    part: Any = tree(900, key) if key != "items" else {}
    for _ in range(900 if key == "items" else 0):
        part = {"items": part}
    for schema in (part, {"properties": {"who": WHO, "other": part}, "required": ["other", "who"]}):
        with contextlib.suppress(RefusedError):
            filled(schema, NAMES)[1]("big", "why")


def test_references_that_double_themselves_end_soon() -> None:
    pairs = {f"d{n}": {"properties": {name: {"$ref": f"#/$defs/d{n + 1}"} for name in "ab"}} for n in range(40)}
    pairs = {name: {**part, "required": ["a", "b"]} for name, part in pairs.items()} | {"d40": {"type": "null"}}
    schema = {"properties": {"who": WHO, "other": {"$ref": "#/$defs/d30"}}, "required": ["other"], "$defs": pairs}
    begun = time.monotonic()
    assert filled({**schema, "required": ["who"]}, NAMES)[1]("big", "") == {"who": "big"}
    schema["properties"]["other"]["$ref"] = "#/$defs/d0"
    with pytest.raises(RefusedError, match="at most"):
        filled(schema, NAMES)[1]("big", "")
    assert time.monotonic() - begun < 10
