"""Bundles that come with the package have names, wherever a bundle's path is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import ipr_engine
from ipr_engine.bundle import Bundle, with_extra_files
from ipr_engine.bundle.load import DEFAULT_BUNDLE, EMBEDDED
from ipr_engine.cli import main
from ipr_engine.errors import BundleNotFoundError, InvalidInputError
from tests.support import skips
from tests.support.bundles import make_bundle


@pytest.mark.parametrize("name", EMBEDDED)
def test_each_name_loads_a_bundle_of_the_package(name: str) -> None:
    bundle = Bundle.load(name)
    assert bundle.path.parent == DEFAULT_BUNDLE
    assert bundle.name == name
    assert ipr_engine.Engine.load(name).bundle.hash == bundle.hash


def test_the_default_is_the_one_that_is_loaded_without_a_name() -> None:
    assert ipr_engine.Engine.load().bundle.hash == Bundle.load("default").hash


def test_a_path_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_bundle(tmp_path)
    own.parent.rename(tmp_path / "default")
    monkeypatch.chdir(tmp_path)
    assert Bundle.load("default").hash == own.name


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_is_no_bundle_and_hides_one_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(BundleNotFoundError, match=r"got a file; .*hides the embedded bundle of that name"):
        Bundle.load(name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(BundleNotFoundError, match=r"with neither; .*hides the embedded bundle of that name"):
        Bundle.load(name)


def test_an_unknown_name_is_told_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    names = ", ".join(EMBEDDED)
    with pytest.raises(BundleNotFoundError, match=f"defualt.*or name an embedded bundle: {names}"):
        Bundle.load("defualt")
    assert main(["info", "--bundle", "defualt"]) == 1
    assert f"name an embedded bundle: {names}" in capsys.readouterr().err


@pytest.mark.parametrize("name", EMBEDDED)
def test_commands_take_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", name]) == 0
    assert Bundle.load(name).hash[:12] in capsys.readouterr().out


def test_what_holds_at_every_tau_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--bundle", "default-2026"]) == 0
    told = capsys.readouterr().out
    assert told.count("which this does not count") == 1
    assert "at every tau: prompts of support below 0.02 go to gemini-3.5-flash, which this does not count\n" in told
    assert "any  the highest predicted quality on each prompt is expected to cost" in told


def test_the_demo_says_that_its_prompts_are_unsupported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--bundle", "default-2026"]) == 0
    told = capsys.readouterr().out
    assert "12 of 12 prompts are unlike what this bundle was fitted on, and go to gemini-3.5-flash at every tau" in told
    assert "unsupported = so far outside that the bundle names who answers" in " ".join(told.split())
    assert "-0%" not in told
    assert main(["demo"]) == 0
    assert "unsupported" not in capsys.readouterr().out


def test_taking_away_who_answers_unsupported_prompts_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bundle", "default-2026", "--out", str(tmp_path)]
    assert main(["remove-model", "gpt-5.5", *given]) == 0
    assert capsys.readouterr().err == ""
    assert main(["remove-model", "gemini-3.5-flash", *given]) == 0
    assert (
        "prompts of support below 0.02 went to gemini-3.5-flash; from now on they are decided by"
        in capsys.readouterr().err
    )
    assert Bundle.load(tmp_path).unsupported is None


def test_nothing_is_written_beside_an_embedded_bundle(capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(DEFAULT_BUNDLE.iterdir())
    with pytest.raises(InvalidInputError, match="root: expected a folder of your own"):
        with_extra_files(Bundle.load("default"), {"card.md": b"mine"})
    assert main(["remove-model", "--bundle", "default", "gpt-4o-2024-08-06"]) == 1
    assert "the embedded bundles lie in the installed package" in capsys.readouterr().err
    assert sorted(DEFAULT_BUNDLE.iterdir()) == before


def test_a_servers_config_names_its_shadow(tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason=skips.SERVE)
    pytest.importorskip("orjson", reason=skips.SERVE)
    from ipr_engine.server import read_config

    file = tmp_path / "serve.yaml"
    file.write_text("shadow: {bundle: default}\n")
    assert read_config(file).shadow.bundle == "default"
    make_bundle(tmp_path).parent.rename(tmp_path / "default")
    assert read_config(file).shadow.bundle == str(tmp_path / "default")
    file.write_text("shadow: {bundle: elsewhere/default}\n")
    assert read_config(file).shadow.bundle == str(tmp_path / "elsewhere" / "default")


def test_a_server_serves_and_shadows_by_name() -> None:
    for module in ("starlette", "yaml", "orjson"):
        pytest.importorskip(module, reason=skips.SERVE)
    from ipr_engine.server import ServerConfig, app
    from ipr_engine.server.server_config import ShadowBundle

    state = app("default-2026", ServerConfig(shadow=ShadowBundle(bundle="default"))).state.ipr
    assert state.engine.bundle.name == "default-2026"
    assert state.shadow.engine.bundle.name == "default"
