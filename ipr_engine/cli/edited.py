"""Which bundle a command edits, and where the new one goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.bundle import Bundle


def add_edited_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", metavar="PATH", help="bundle root or folder (default: the embedded one; --out is needed then)"
    )
    parser.add_argument(
        "--out", metavar="ROOT", help="bundle root to write to, made current (default: the bundle's own)"
    )


def edited_bundle(arguments: argparse.Namespace) -> Bundle:
    """The bundle to be edited.

    Raises:
        InvalidInputError: the new one would go into the installed package.
    """
    from ipr_engine.bundle import Bundle
    from ipr_engine.bundle.load import DEFAULT_BUNDLE

    bundle = Bundle.load(DEFAULT_BUNDLE if arguments.bundle is None else arguments.bundle)
    root = bundle.path.parent if arguments.out is None else Path(arguments.out)
    if root.resolve().is_relative_to(DEFAULT_BUNDLE.resolve()):
        raise InvalidInputError(
            "--out: expected a folder to write the new bundle to, such as --out bundles/: the embedded bundle lies in the installed "
            "package and stays as it is; or name a bundle of your own with --bundle"
        )
    return bundle
