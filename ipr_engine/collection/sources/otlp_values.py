"""Values of OTLP/JSON as plain ones: `value_of` an AnyValue, `attributes_of` what has attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def value_of(value: Any) -> Any:
    """Return an AnyValue as text, number, list or object; None where it is none or holds nothing."""
    if not isinstance(value, Mapping):
        return None
    if "stringValue" in value:
        return value["stringValue"]
    if "intValue" in value:  # 64 bits: text in JSON
        number = value["intValue"]
        return (
            int(number) if isinstance(number, str) and number.lstrip("-").isdecimal() and len(number) < 21 else number
        )
    if "doubleValue" in value:
        return value["doubleValue"]
    if "boolValue" in value:
        return value["boolValue"]
    if "arrayValue" in value:
        return [value_of(item) for item in listed(_inside(value["arrayValue"]))]
    if "kvlistValue" in value:
        return _pairs(_inside(value["kvlistValue"]))
    return None


def attributes_of(owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a span, an event or a log record."""
    return _pairs(owner.get("attributes"))


def listed(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list; nothing where it is none."""
    return (item for item in value if isinstance(item, Mapping)) if isinstance(value, list) else iter(())


def _inside(value: Any) -> Any:
    return value.get("values") if isinstance(value, Mapping) else None


def _pairs(pairs: Any) -> dict[str, Any]:
    return {pair["key"]: value_of(pair.get("value")) for pair in listed(pairs) if isinstance(pair.get("key"), str)}
