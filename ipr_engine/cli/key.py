"""`ipr key` writes a new owner's key."""

from __future__ import annotations

import argparse
from typing import Any

from ipr_engine.audit.owner_key import OwnerKey


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "key",
        help="make an owner's key: it seals what records keep of prompts, and keys the hashes in bundles",
        description="Write 32 random bytes in hex to FILE, readable by you alone (mode 0600). A file that is there is never replaced. "
        "Keep a copy: what was sealed under a lost key stays sealed. The key itself is never printed, only its id.",
    )
    parser.add_argument("file", metavar="FILE", help="where to write it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    key = OwnerKey.create(arguments.file)
    print(f"{arguments.file}: key of id {key.id}")
    return 0
