"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ipr_engine.encoders.load_options import EncoderOptions
from ipr_engine.encoders.tiers import TIERS
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.cost_weights import TERMS
from ipr_engine.policy.policy import EVERY_RULE, Policy
from ipr_engine.policy.targets import ASKS, PRESETS


def add_bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="PATH", help="bundle root or folder (default: the embedded one)")
    parser.add_argument("--isa", default="auto", choices=("auto", "scalar", "avx2", "avx512"), help="instruction set")
    add_encoder_options(parser)


def add_encoder_options(parser: argparse.ArgumentParser, *, folders: bool = True) -> None:
    """Who runs a transformer; nothing of it matters where a table encodes. folders: whether a bundle may reference one."""
    group = parser.add_argument_group("transformers")
    group.add_argument("--tier", default="auto", choices=TIERS, help="who runs them (default auto: docs/encoders.md)")
    group.add_argument("--device", default="cpu", help="where they run, such as cuda:0 (default cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="of the onnx tier (default one a physical core)")
    if folders:
        group.add_argument(
            "--encoder-folder",
            action="append",
            default=[],
            metavar="DIR",
            help="an export to look in for a transformer that the bundle references and does not contain; repeatable",
        )


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", metavar="DIR", help="keep a transformer's embeddings here; they are read the next time"
    )


def add_key_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--key", metavar="FILE", help=f"the owner's key: {what} (`ipr key` makes one)")


def encoder_options(arguments: argparse.Namespace) -> EncoderOptions:
    return EncoderOptions(
        tier=arguments.tier,
        device=arguments.device,
        threads=arguments.threads,
        folders=tuple(getattr(arguments, "encoder_folder", ())),
    )


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policy")
    group.add_argument("--tau", type=float, help="tolerance in [0, 1]: 0 best quality, 1 cheapest (default 0.1)")
    group.add_argument(
        "--rule",
        choices=sorted(EVERY_RULE),
        help="what tau bounds (default path where the bundle has one, else minmax, and calibrated for what follows)",
    )
    for option, kind, metavar, help_text in (
        ("--quality-share", float, "S", "instead of tau: share of the best single candidate's mean quality to keep"),
        ("--max-usd-per-1k", float, "USD", "instead of tau: expected cost of 1,000 prompts"),
        ("--max-share-strongest", float, "S", "instead of tau: share of prompts to the best single candidate"),
        ("--response-quality-difference", float, "PERCENT", "instead of tau: mean quality that may be lost, 0 to 100"),
        ("--preset", str, "NAME", f"instead of tau: {', '.join(PRESETS)}"),
    ):
        group.add_argument(option, type=kind, metavar=metavar, help=help_text)
    group.add_argument("--slack", type=float, help="margin of rule max (default 0)")
    group.add_argument(
        "--worth",
        type=float,
        metavar="USD",
        help="USD per unit of quality (default 0, or the map's; not under rule path)",
    )
    for option, metavar, help_text in (
        ("--allow", "NAME", "only these candidates"),
        ("--exclude", "NAME", "none of these candidates"),
        ("--family", "NAME", "only these families"),
        ("--requires", "FEATURE", "only candidates with all of these"),
    ):
        group.add_argument(option, action="extend", type=_names, metavar=metavar, help=f"{help_text}; a,b or repeat")
    group.add_argument("--max-latency-ms", type=float, metavar="MS", help="only candidates known to answer within it")
    group.add_argument(
        "--price", action="append", metavar="NAME=IN,OUT", help="USD per 1 M input and output tokens; repeatable"
    )
    group.add_argument("--batch", action="store_true", default=None, help="at the candidates' batch prices")
    group.add_argument(
        "--cache-write",
        action="store_true",
        default=None,
        help="at the price of writing input to the provider's cache, where it is long enough",
    )
    group.add_argument(
        "--escalate-below",
        type=float,
        metavar="Q",
        help="of a two-tier bundle: decide again where the gap is below it, 0 never, inf always (default the bundle's)",
    )
    group.add_argument(
        "--min-support",
        type=float,
        metavar="S",
        help="in [0, 1]: a prompt of less support is not decided by predicted quality (default 0: every prompt is)",
    )
    group.add_argument(
        "--unsupported",
        metavar="NAME",
        help="who answers it: best (the best single candidate, the default), cheapest, or a candidate's name",
    )

    group.add_argument(
        "--cost-weight",
        action="append",
        metavar="TERM=USD",
        help=f"what a unit of a term of cost is worth, of {', '.join(f'{term} ({unit})' for term, unit in TERMS.items())}; repeatable "
        "(default: USD alone counts)",
    )


def load_engine(arguments: argparse.Namespace) -> Engine:
    return Engine.load(
        arguments.bundle,
        isa=arguments.isa,
        tier=arguments.tier,
        device=arguments.device,
        threads=arguments.threads,
        encoder_folders=arguments.encoder_folder,
    )


def make_policy(engine: Engine, arguments: argparse.Namespace) -> Policy:
    """The policy of these options, of tau 0.1 where none says how much quality is asked for."""
    terms = asked_terms(arguments)
    return engine.policy(**terms) if terms.keys() & {"tau", *ASKS} else engine.policy(tau=0.1, **terms)


def asked_terms(arguments: argparse.Namespace) -> dict[str, Any]:
    """The terms of a policy that these options give, as `Engine.policy` takes them."""
    terms = {
        **{name: getattr(arguments, name) for name in ("tau", *ASKS, "rule", "slack", "worth")},
        "allowed": arguments.allow,
        **{name: getattr(arguments, name) for name in ("exclude", "family", "requires", "max_latency_ms")},
        "prices": _prices(arguments.price) if arguments.price else None,
        **{name: getattr(arguments, name) for name in ("escalate_below", "batch", "cache_write")},
        **{name: getattr(arguments, name) for name in ("min_support", "unsupported")},
        "cost_weights": _weights(arguments.cost_weight) if arguments.cost_weight else None,
    }
    return {name: value for name, value in terms.items() if value is not None}


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


def source_names(engine: Engine, items: list[str]) -> dict[str, Mapping[str, str] | str]:
    """Each candidate's name in the outcomes, see `data.name_in_source`: what `ipr train` wrote down, or NAME=SOURCE of --map."""
    trained_as = engine.bundle.provenance.get("sources", {})
    names = {name: trained_as.get(name, name) for name in engine.bundle.names}
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
