"""An `About` states once what an option means to a caller, its form in a record, and its flag on the command line.

An options class is a frozen dataclass whose fields are made by `option(...)`; `about` gives back what a field knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, NamedTuple

# How a flag takes its value, and the JSON form of an option in a record.
Takes = Literal["text", "number", "whole number", "names", "switch", "list"]
Form = Literal[
    "number", "number or infinity", "flag", "text", "candidates", "candidate", "names", "prices", "weights", "figures"
]


class Flag(NamedTuple):
    """A `Flag` says how an option is given on the command line.

    Attributes:
        help: the line of `--help`. metavar: what it calls the value; None: the flag's own name.
        name: the flag, where it is not the option's name with dashes.
        takes: "names" are separated by commas, and repeatable; a "list" is repeatable, one value each time.
        choices: the only values; none: any.
        states_default: whether the option is passed on where the flag is left out; else it is not given then.
    """

    help: str
    metavar: str | None = None
    name: str | None = None
    takes: Takes = "text"
    choices: tuple[str, ...] = ()
    states_default: bool = False


class About(NamedTuple):
    """An `About` holds what is known of an option besides its name, type and default.

    Attributes:
        doc: what it means to a caller; the tables of docs/usage.md are made of it.
        form: the form of its value in a record; None where no record holds it. choices: the only texts there; none: any.
        flag: on the command line; None where it has none.
    """

    doc: str
    form: Form | None = None
    choices: tuple[str, ...] = ()
    flag: Flag | None = None


def option(
    default: Any,
    doc: str,
    *,
    form: Form | None = None,
    choices: tuple[str, ...] = (),
    flag: Flag | None = None,
) -> Any:
    """Return the dataclass field of an option."""
    return field(default=default, metadata={"about": About(doc=doc, form=form, choices=choices, flag=flag)})


def about(options: type) -> dict[str, About]:
    """Return option -> its `About`, in the order of the fields of an options class."""
    return {name: made.metadata["about"] for name, made in options.__dataclass_fields__.items()}  # type: ignore[attr-defined]


def flags(options: type) -> dict[str, Flag]:
    """Return option -> its flag, of those of an options class that have one."""
    return {name: one.flag for name, one in about(options).items() if one.flag is not None}


def refuse_unknown(function: str, given: Mapping[str, object], options: type) -> None:
    """Raise the TypeError of Python for a keyword that is no option, in the name of the function that was called."""
    for name in given:
        if name not in options.__dataclass_fields__:  # type: ignore[attr-defined]
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
