"""Options of the test run, and the rule that no test is skipped without a registered reason."""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest

from ipr_engine.decide import available_isas

# A skip's reason must start with one of these.
HARDWARE = ("machine lacks",)  # e.g. "machine lacks avx512"
DATA = ("needs --outcomes",)  # real routing outcomes, which are not ours to ship
EXTRAS = ("needs extra",)  # e.g. "needs extra [train]: torch"; not allowed under --all-extras


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--outcomes",
        default=os.environ.get("IPR_OUTCOMES"),
        metavar="DIR",
        help="folder of routing outcomes to test on",
    )
    parser.addoption("--all-extras", action="store_true", help="every extra is installed: a test skipped for one fails")


def skip_reasons(config: pytest.Config) -> tuple[list[str], set[str]]:
    """The reason of every skipped test, and those among them that nobody registered."""
    allowed = HARDWARE + DATA + (() if config.getoption("--all-extras") else EXTRAS)
    skipped = config.pluginmanager.getplugin("terminalreporter").stats.get("skipped", [])
    reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in skipped]
    return reasons, {reason for reason in reasons if not reason.startswith(allowed)}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if skip_reasons(session.config)[1]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons, unexpected = skip_reasons(config)
    for reason in sorted(set(reasons)):
        verdict = "UNEXPECTED SKIP" if reason in unexpected else "not run"
        terminalreporter.write_line(f"{verdict}: {reasons.count(reason)} test(s): {reason}", red=reason in unexpected)


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> str:
    """The folder given by --outcomes; without it the test is skipped."""
    folder = request.config.getoption("--outcomes")
    if not folder:
        pytest.skip("needs --outcomes DIR (real routing outcomes)")
    return str(folder)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's own id, so that a failure is reproduced by running that test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param
