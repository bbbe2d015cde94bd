"""Controls are what one request says of its own decision: headers `x-ipr-NAME`, or an object `ipr` in the body's metadata.

A wrong control is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ipr_engine._validate import list_of_names, number, shown
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy_spec import Options
from ipr_engine.policy.rules import TARGETS
from ipr_engine.prompts.objects import kind_of

HEADER = "x-ipr-"
FIELD = "metadata.ipr"
NUMBERS = ("tau", "quality_share", "max_usd_per_1k")
NAMES = ("allowed", "exclude")
CONTROLS = (*NUMBERS, *NAMES)
AIMS = ("tau", *TARGETS)  # of which a policy has exactly one


class WrongControlError(InvalidInputError):
    """A control of a request is wrong: the request is to be refused.

    Attributes:
        control: its name as the request has it: a header, or a place in the body.
    """

    def __init__(self, control: str, why: str) -> None:
        self.control, self.why = control, why
        super().__init__(f"{control}: {why}")

    def __reduce__(self) -> tuple[type[WrongControlError], tuple[str, str]]:
        return type(self), (self.control, self.why)


class Control(NamedTuple):
    """A `Control` is one value and where the request gave it, as errors call it."""

    value: float | list[str]
    where: str


def read_controls(headers: object, field: object, accepted: Collection[str] = CONTROLS) -> dict[str, Control]:
    """Return control -> what a request gives of it.

    Args:
        headers: name -> text, of the HTTP request. field: the object `ipr` of its metadata; None where it has none.
        accepted: the controls that a request may give.
    Raises:
        WrongControlError: an unknown control, one that is not accepted or given twice, or no number or names where some are due.
    """
    given: list[tuple[str, str, object]] = []  # name, where, value
    if isinstance(headers, Mapping):
        for header, text in headers.items():
            where = str(header).lower()
            if where.startswith(HEADER):
                name = where.removeprefix(HEADER).replace("-", "_")
                given.append((name, where, _of_text(name, where, str(text))))
    if isinstance(field, Mapping):
        given += [(str(name), f"{FIELD}.{shown(name)[1:-1]}", value) for name, value in field.items()]
    elif field is not None:
        raise WrongControlError(FIELD, f"expected an object of {', '.join(accepted)}, got {kind_of(field)}")
    found: dict[str, Control] = {}
    for name, where, value in given:
        if name not in accepted:
            raise WrongControlError(
                where, f"expected a control that is accepted here ({', '.join(accepted) or 'none'})"
            )
        if name in found:
            raise WrongControlError(where, f"given already as {found[name].where}; give it once")
        found[name] = Control(_checked(name, where, value), where)
    return found


def _of_text(name: str, where: str, text: str) -> object:
    """Return a header's text as a number or a list of names, by the control it is for."""
    if name not in NUMBERS:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return float(text)
    except ValueError:
        pass
    raise WrongControlError(where, f"expected a number, got {shown(text)}")


def _checked(name: str, where: str, value: object) -> float | list[str]:
    try:
        checked = number(where, value) if name in NUMBERS else list_of_names(where, value)
    except InvalidInputError as error:
        wrong = WrongControlError(where, str(error).partition(": ")[2])
    else:
        if checked != []:
            return checked
        wrong = WrongControlError(where, "expected at least one name, got none; leave the control out")
    raise wrong


def controlled(options: Options, controls: Mapping[str, Control], candidates: Mapping[str, str]) -> dict[str, Any]:
    """Return a policy's options as one request has them: its aim in place of theirs, fewer candidates, never more.

    Args:
        options: the operator's. candidates: name that a request may use -> candidate, of those that the operator allows.
    Raises:
        WrongControlError: a name is not one of these.
    """
    made = dict(options)
    if not controls.keys().isdisjoint(NUMBERS):
        for aim in AIMS:
            made.pop(aim, None)
    for name, (value, where) in controls.items():
        if not isinstance(value, list):
            made[name] = value
            continue
        unknown = sorted(set(value) - candidates.keys())
        if unknown:
            known = ", ".join(sorted(candidates))
            raise WrongControlError(where, f"unknown {', '.join(map(shown, unknown))}; known: {known}")
        own = list_of_names(name, made.get(name) or ()) if name == "exclude" else []
        made[name] = [*own, *sorted({candidates[one] for one in value})]
    return made


def blamed(error: InvalidInputError, controls: Mapping[str, Control]) -> WrongControlError:
    """Return a policy's error as that of the control that brought it about: "x-ipr-tau: ..." in place of "tau: ..."."""
    argument, _, rest = str(error).partition(": ")
    if argument in controls:
        return WrongControlError(controls[argument].where, rest)
    return WrongControlError(" and ".join(control.where for control in controls.values()), str(error))
