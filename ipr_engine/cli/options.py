"""Options that several subcommands share: those of loading a bundle, those of a policy, and what a command makes of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from ipr_engine._options import flags
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy_spec import PolicySpec
from ipr_engine.policy.rules import TARGETS

_OF_TRANSFORMERS = ("tier", "device", "threads", "encoder_folders")


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="PATH", help="bundle root or folder (default: the embedded one)")
    _add_flags(parser, LoadOptions, ("isa",))
    add_encoder_options(parser)


def add_encoder_options(parser: argparse.ArgumentParser, *, folders: bool = True) -> None:
    """Add who runs a transformer; nothing of it matters where a table encodes. folders: whether a bundle may reference one."""
    names = _OF_TRANSFORMERS if folders else tuple(name for name in _OF_TRANSFORMERS if name != "encoder_folders")
    _add_flags(parser.add_argument_group("transformers"), LoadOptions, names)


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", metavar="DIR", help="keep a transformer's embeddings here; they are read the next time"
    )


def add_key_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--key", metavar="FILE", help=f"the owner's key: {what} (`ipr key` makes one)")


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    _add_flags(parser.add_argument_group("policy"), PolicySpec, tuple(flags(PolicySpec)))


def _add_flags(parser: argparse._ActionsContainer, options: type, names: tuple[str, ...]) -> None:
    """Add the flags of these options; what each gives lies under the option's name."""
    for name in names:
        flag = flags(options)[name]
        default = options.__dataclass_fields__[name].default if flag.states_default else None  # type: ignore[attr-defined]
        settings: dict[str, Any] = {"dest": name, "help": flag.help, "default": default}
        if flag.choices:
            settings["choices"] = flag.choices
        if flag.takes == "switch":
            settings["action"] = "store_true"
        elif flag.metavar is not None:
            settings["metavar"] = flag.metavar
        if flag.takes == "list":
            settings |= {"action": "append", "default": default if default is None else list(default)}
        if flag.takes == "names":
            settings["action"] = "extend"
        if flag.takes in _READ:
            settings["type"] = _READ[flag.takes]
        parser.add_argument(flag.name or f"--{name.replace('_', '-')}", **settings)


def load_options(arguments: argparse.Namespace) -> LoadOptions:
    """Return the options of loading that were given; a command without some of the flags leaves their defaults."""
    return LoadOptions(**load_keywords(arguments))


def load_keywords(arguments: argparse.Namespace) -> Any:
    """Return what `Engine.load` takes of these, by name."""
    return {name: getattr(arguments, name) for name in flags(LoadOptions) if name in arguments}


def policy_keywords(arguments: argparse.Namespace) -> Any:
    """Return what `Engine.policy` takes of these, by name: tau 0.1 where none says how much quality is asked for."""
    options = given_options(arguments)
    return options if options.keys() & {"tau", *TARGETS} else {"tau": 0.1, **options}


def given_options(arguments: argparse.Namespace) -> Any:
    """Return the options of a policy that were given, as `Engine.policy` takes them."""
    given = {name: getattr(arguments, name) for name in flags(PolicySpec)}
    return {
        name: _LISTED[name](value) if name in _LISTED else value for name, value in given.items() if value is not None
    }


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _prices(items: list[str]) -> dict[str, tuple[float, float]]:
    prices = {}
    for item in items:
        name, _, pair = item.rpartition("=")
        try:
            given_in, given_out = (float(value) for value in pair.split(","))
        except ValueError:
            raise InvalidInputError(f"--price: expected NAME=IN,OUT such as gpt-4o=2.5,10, got {item!r}") from None
        prices[name] = (given_in, given_out)
    return prices


def _weights(items: list[str]) -> dict[str, float]:
    weights = {}
    for item in items:
        term, _, value = item.partition("=")
        try:
            weight = float(value)
        except ValueError:
            raise InvalidInputError(f"--cost-weight: expected TERM=USD such as ttft_s=0.002, got {item!r}") from None
        if term in weights:
            raise InvalidInputError(f"--cost-weight: {term} is given twice; give it once")
        weights[term] = weight
    return weights


_READ: Mapping[str, Callable[[str], Any]] = {"number": float, "whole number": int, "names": _names}
_LISTED: Mapping[str, Callable[[list[str]], Any]] = {"prices": _prices, "cost_weights": _weights}


def source_names(bundle: BundleSpec, items: list[str]) -> dict[str, Mapping[str, str] | str]:
    """Each candidate's name in the outcomes, see `data.name_in_source`: what `ipr train` wrote down, or NAME=SOURCE of --map."""
    trained_as = bundle.provenance.get("sources", {})
    names = {name: trained_as.get(name, name) for name in bundle.names}
    for item in items:
        name, _, source = item.partition("=")
        if name not in names or not source:
            known = ", ".join(names)
            raise InvalidInputError(f"--map: expected NAME=SOURCE with a candidate's name ({known}), got {item!r}")
        names[name] = source
    return names


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters; control characters do not reach the terminal."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
