from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", metavar="DIR", help="also check the tokenizer on every prompts.parquet under DIR")
