"""Options of the test run, and the rule that no test is skipped without a registered reason."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from ipr_engine import Engine
from ipr_engine import _old_spellings as old_spellings
from ipr_engine.decide.contract import available_isas
from ipr_engine.encoders import tier_choice

pytest.register_assert_rewrite("tests.support")  # what is asserted there shows its values, as in a test file

from tests.support import skips  # noqa: E402
from tests.support.bundles import make_bundle  # noqa: E402

# A machine that other work keeps busy is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
settings.register_profile("quick", max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--outcomes",
        default=os.environ.get("IPR_OUTCOMES"),
        metavar="DIR",
        help="folder of routing outcomes to test on",
    )
    parser.addoption("--all-extras", action="store_true", help="every extra is installed: a test skipped for one fails")


def pytest_configure() -> None:
    # A shell lets what it begins in the background ignore SIGINT, and nohup SIGHUP, and with it whatever a test begins and then signals.
    heeded = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    for number, handler in heeded.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def skip_reasons(config: pytest.Config) -> tuple[list[str], set[str]]:
    """The reason of every skipped test, and those among them that nobody registered."""
    allowed = skips.allowed(all_extras=config.getoption("--all-extras"))
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


@pytest.fixture(autouse=True, scope="session")
def tier_choices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tier "auto" takes is kept for this run alone, and not in the home of who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tier_choice, "CACHE", tmp_path_factory.mktemp("tiers"))
        yield


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test's own id, so that a failure is reproduced by running that test."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def fresh_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old spellings warn as in a new process."""
    monkeypatch.setattr(old_spellings, "_warned", set())


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle to read, not to edit: five candidates on a 16-d table."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), models=5, dim=16)


@pytest.fixture(scope="module")
def engine(bundle_folder: Path) -> Engine:
    """An engine of `bundle_folder`; a room or a file whose tests need another bundle overrides it."""
    return Engine.load(bundle_folder)


@pytest.fixture(scope="session")
def default_engine() -> Engine:
    """The embedded default bundle's engine, to ask and not to swap."""
    return Engine.load()


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest) -> str:
    return request.param
