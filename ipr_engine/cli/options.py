"""This file has the options that several subcommands share: it adds them to a parser, and reads what was given."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ipr_engine._options import flags
from ipr_engine.bundle.load import DEFAULT_BUNDLE, Bundle
from ipr_engine.bundle.spec import BundleSpec
from ipr_engine.cli.serve_places import named_as_bundle
from ipr_engine.encoders.heeded import refuse_unheeded
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy_spec import PolicySpec
from ipr_engine.policy.rules import with_aim

Loaded = TypeVar("Loaded")
GOES_ON = "; the same command goes on where it stopped"  # `resume` of a command that keeps what is done, for whoever interrupts it
_OF_TRANSFORMERS = ("tier", "device", "threads", "encoder_folders")


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", metavar="PATH", help="bundle root, folder, or the name of an embedded one (default: default)"
    )
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


def add_key_option(parser: argparse._ActionsContainer, what: str) -> None:
    parser.add_argument("--key", metavar="FILE", help=f"the owner's key: {what} (`ipr key` makes one)")


def add_task_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        metavar="NAME",
        help="what the prompt is for, as its caller knows it: a bundle trained with --task-column decides by it",
    )


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    _add_flags(parser.add_argument_group("policy"), PolicySpec, tuple(flags(PolicySpec)))


def add_edited_options(parser: argparse.ArgumentParser) -> None:
    """Add which bundle a command edits, and where the new one goes; `edited_bundle` reads them."""
    parser.add_argument(
        "--bundle",
        metavar="PATH",
        help="bundle root, folder, or the name of an embedded one, which needs --out (default: default)",
    )
    parser.add_argument(
        "--out", metavar="ROOT", help="bundle root to write to, made current (default: the bundle's own)"
    )


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
            # a copy: argparse appends to the default that it is given
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


def load_engine(arguments: argparse.Namespace, engine: Callable[..., Loaded]) -> Loaded:
    """Load the bundle that --bundle names, for this command alone. engine: `Engine`.

    Raises:
        InvalidInputError: an option of loading that this bundle does not heed, or what `Engine.load` raises, named by its flag.
    """
    with named_as_bundle(None):
        bundle = Bundle.load(DEFAULT_BUNDLE if arguments.bundle is None else arguments.bundle)
        refuse_unheeded(bundle, load_options(arguments))
        return engine(bundle, **load_keywords(arguments))


def policy_keywords(arguments: argparse.Namespace) -> Any:
    """Return what `Engine.policy` takes of these, by name, with an aim."""
    return with_aim(given_options(arguments))


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


def edited_bundle(arguments: argparse.Namespace) -> Bundle:
    """Read the bundle that --bundle and --out say is to be edited.

    Raises:
        InvalidInputError: the new one would go into the installed package.
    """
    bundle = Bundle.load(DEFAULT_BUNDLE if arguments.bundle is None else arguments.bundle)
    # resolved, since a link may lead into the package
    root = bundle.path.parent if arguments.out is None else Path(arguments.out)
    if root.resolve().is_relative_to(DEFAULT_BUNDLE.resolve()):
        raise InvalidInputError(
            "--out: expected a folder to write the new bundle to, such as --out bundles/: the embedded bundle lies in the installed "
            "package and stays as it is; or name a bundle of your own with --bundle"
        )
    return bundle


def named_pairs(option: str, items: list[str], form: str) -> dict[str, str]:
    """Return {name: theirs} of a repeatable option NAME=THEIRS.

    Raises:
        InvalidInputError: an item is of another form than `form`, or a name is given twice; the error names `option`.
    """
    found: dict[str, str] = {}
    for item in items:
        name, _, theirs = item.partition("=")
        if not name or not theirs or name in found:
            raise InvalidInputError(f"{option}: expected {form}, each name once, got {item!r}")
        found[name] = theirs
    return found


def source_names(bundle: BundleSpec, items: list[str]) -> dict[str, Mapping[str, str] | str]:
    """Return each candidate's name in the outcomes, as `data.name_in_source` reads it: NAME=SOURCE of --map, else what `ipr train` kept."""
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
    """Return a text as one line of at most `width` characters; control characters do not reach the terminal."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
