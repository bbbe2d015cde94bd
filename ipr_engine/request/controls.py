"""Controls are what one request says of its own decision: headers `x-ipr-NAME`, or objects of its body; `read_controls` reads them.

A wrong control is an error, never ignored. Whoever serves a request tells where its headers and its body hold controls.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from ipr_engine._validate import shown
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy_spec import ABOUT, POLICY_CONTROLS
from ipr_engine.policy.rules import AIMS
from ipr_engine.prompts.objects import kind_of
from ipr_engine.request.route_request import REQUEST_OPTIONS, RequestOptions
from ipr_engine.request.wrong_control import WrongControlError

HEADER = "x-ipr-"
EXPLAIN = "explain"
TASK = "task"
TASK_HEADER = HEADER + TASK
TASK_OF_METADATA = "ipr_task"  # the key of a request's metadata by which callers of gateways name it
MOST_ENTRIES, MOST_LEVELS, MOST_TEXT = 4096, 4, 65_536
"""Entries of one control in all, how deep they are nested, and characters of an object of controls that is a text."""
EVERY_CONTROL = (*POLICY_CONTROLS, *REQUEST_OPTIONS, EXPLAIN)

_FORMS: Mapping[str, str | None] = {
    **{name: ABOUT[name].form for name in POLICY_CONTROLS},
    TASK: "text",
    EXPLAIN: "flag",
}
_BY_HEADER = {HEADER + name.replace("_", "-"): name for name, form in _FORMS.items() if form != "weights"}
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}
_LEADING_NAME = re.compile(r"\w*")


@dataclass(frozen=True, slots=True)
class Controls:
    """A `Controls` holds what one request says of its own decision.

    Attributes:
        policy: options of a policy. given: what is given of the prompt.
        explain: whether every candidate is to be told of.
        where: control -> where the request gave it, as errors call it.
    """

    policy: Mapping[str, Any] = field(default_factory=dict)
    given: RequestOptions = field(default_factory=RequestOptions)
    explain: bool = False
    where: Mapping[str, str] = field(default_factory=dict)

    def named_by(self, error: InvalidInputError) -> WrongControlError | None:
        """Return an error as that of the control that it names: "x-ipr-tau: ..." in place of "tau: ..."; None where it names none."""
        argument, _, why = str(error).partition(": ")
        name = cast(re.Match[str], _LEADING_NAME.match(argument)).group()
        where = self.where.get(name)
        return None if where is None else WrongControlError(where + argument[len(name) :], why)

    def require_no_explain(self) -> None:
        """Refuse `explain` where nobody reads what it asks for.

        Raises:
            WrongControlError: it is given.
        """
        if self.explain:
            raise WrongControlError(self.where[EXPLAIN], "is for /v1/route alone, whose reply tells of every candidate")

    def blamed(self, error: InvalidInputError) -> WrongControlError:
        """Return the error of a policy as that of the controls that brought it about."""
        every = " and ".join(self.where[name] for name in self.policy)
        return self.named_by(error) or WrongControlError(every, str(error))


NO_CONTROLS = Controls()


def read_controls(
    headers: Iterable[tuple[str, str]],
    objects: Iterable[tuple[str, object]],
    accepted: Collection[str] = EVERY_CONTROL,
    alone: Iterable[tuple[str, str, object]] = (),
) -> Controls:
    """Read what a request says of its own decision.

    Args:
        headers: name and text of each header; others than `x-ipr-NAME` are passed over.
        objects: where the body holds controls ("metadata.ipr"; "" for fields of its own), and what: control -> value, the JSON of
            such an object as a text, or None.
        accepted: the controls that the request may set.
        alone: control, place and value of fields of the body that are one control each.
    Raises:
        WrongControlError: a control is unknown, not accepted, given twice, beside another aim, or not of its type.
    """
    policy: dict[str, Any] = {}
    given: dict[str, Any] = {}
    explain = False
    where: dict[str, str] = {}
    for name, place, value in (*_of_headers(headers, accepted), *_of_objects(objects), *alone):
        if name not in accepted:
            _refuse(name, place, accepted)
        if value is None:  # says nothing, as everywhere
            continue
        if name in where:
            raise WrongControlError(place, f"is given already as {where[name]}; give it once")
        if isinstance(value, (list, Mapping)):
            _check_size(place, value)
        form = _FORMS.get(name)
        value = _checked(form, place, value)
        if value == [] and form in ("candidates", "names"):
            if name == "exclude":
                continue
            raise WrongControlError(place, "expected at least one name, got none; leave the control out")
        where[name] = place
        if name in REQUEST_OPTIONS:
            given[name] = value
        elif name == EXPLAIN:
            explain = value
        else:
            policy[name] = value
    if not where:
        return NO_CONTROLS
    aims = [name for name in policy if name in AIMS]
    if len(aims) > 1:
        raise WrongControlError(where[aims[1]], f"is given beside {where[aims[0]]}; give one of them")
    return Controls(policy, cast(RequestOptions, given), explain, where)


def _check_size(place: str, value: Collection[object]) -> None:
    """Refuse a list or an object that holds more, or is nested deeper, than any control."""
    level: list[Any] = [value]
    entries = 0
    for _ in range(MOST_LEVELS + 1):
        level = [item for one in level for item in (one.values() if isinstance(one, Mapping) else one)]
        entries += len(level)
        if entries > MOST_ENTRIES:
            raise WrongControlError(place, f"expected at most {MOST_ENTRIES} entries, got more")
        level = [item for item in level if isinstance(item, (list, tuple, Mapping))]
        if not level:
            return
    raise WrongControlError(place, f"expected lists and objects nested at most {MOST_LEVELS} deep")


def _refuse(name: str, place: str, accepted: Collection[str]) -> NoReturn:
    if name in EVERY_CONTROL:
        may = ", ".join(one for one in accepted if one != EXPLAIN) or "none"  # it is for one path alone
        raise WrongControlError(place, f"may not be set here; what may be: {may}", forbidden=True)
    raise WrongControlError(place, f"is no control; known: {', '.join(accepted) or 'none'}", known=False)


def _of_headers(headers: Iterable[tuple[str, str]], accepted: Collection[str]) -> list[tuple[str, str, object]]:
    """Return name, place and value of each control that is a header."""
    found: list[tuple[str, str, object]] = []
    for header, text in headers:
        place = header.lower()
        if not place.startswith(HEADER):
            continue
        name = _BY_HEADER.get(place)
        if name is None:
            of_body = place.removeprefix(HEADER).replace("-", "_")
            if of_body in accepted:
                raise WrongControlError(place, f"stands in the body alone: ipr.{of_body}", known=False)
            known = ", ".join(one for one, name in _BY_HEADER.items() if name in accepted)
            raise WrongControlError(_printable(place), f"is no control; known: {known or 'none'}", known=False)
        found.append((name, place, _of_text(_FORMS[name], place, text.strip())))
    return found


def _of_objects(objects: Iterable[tuple[str, object]]) -> list[tuple[str, str, object]]:
    """Return name, place and value of each control of the body."""
    found: list[tuple[str, str, object]] = []
    for within, value in objects:
        said = _from_json(within, value) if isinstance(value, str) else value  # OpenAI's metadata holds texts alone
        if said is None:
            continue
        if not isinstance(said, Mapping):
            raise WrongControlError(within, f'expected an object such as {{"tau": 0.2}}, got {kind_of(said)}')
        for name, one in said.items():
            found.append((str(name), f"{within}.{_printable(str(name))}" if within else _printable(str(name)), one))
    return found


def _from_json(within: str, text: str) -> object:
    if len(text) > MOST_TEXT:
        raise WrongControlError(within, f"expected an object, or its JSON of at most {MOST_TEXT} characters")
    try:
        return json.loads(text, object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError):
        pass
    raise WrongControlError(within, 'expected an object, or its JSON such as {"tau": 0.2}')


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # the last of two would win
        raise ValueError
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError  # Python reads NaN and Infinity, which are no JSON


def _of_text(form: str | None, place: str, text: str) -> object:
    """Return a header's text as a value of the form of its control."""
    if form in ("number", "number or infinity"):
        try:
            if "_" not in text:  # Python reads 1_0 as ten
                return float(text)
        except ValueError:
            pass
        raise WrongControlError(place, f"expected a number, got {shown(text)}")
    if form in ("candidates", "names"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if form == "text":
        return text_of_header(text)
    if form == "flag":
        if text.lower() not in _SWITCHES:
            raise WrongControlError(place, f"expected true or false, got {shown(text)}")
        return _SWITCHES[text.lower()]
    return text


def text_of_header(text: str) -> str:
    """Return a header's text that is UTF-8 as what it says: servers read the bytes of headers as Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _checked(form: str | None, place: str, value: object) -> Any:
    """Return a value of its form; what it means is for the policy to say."""
    if form in ("number", "number or infinity"):
        return _number(place, value, infinite=form == "number or infinity")
    if form in ("candidates", "names"):
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise WrongControlError(place, f"expected a list of names, got {kind_of(value)}")
        return list(names)
    if form == "flag" and not isinstance(value, bool):
        raise WrongControlError(place, f"expected true or false, got {kind_of(value)}")
    if form in ("text", "candidate") and not isinstance(value, str):
        raise WrongControlError(place, f"expected a text, got {kind_of(value)}")
    return value


def _number(place: str, value: object, *, infinite: bool) -> float:
    if infinite and value == "infinity":  # as records have it
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongControlError(place, f"expected a number, got {kind_of(value)}")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond float64
        number = math.inf
    if not math.isfinite(number) and not (infinite and number == math.inf):
        raise WrongControlError(place, f"expected a finite number, got {number}")
    return number


def _printable(name: str) -> str:
    return shown(name[:64])[1:-1]
