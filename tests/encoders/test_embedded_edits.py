"""`ipr set-prices` and `ipr set-performance` of the embedded bundle: into a folder of one's own, never into the package."""

import json

import pytest

from ipr_engine import Bundle
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.cli import main

NAME = "gpt-4o-2024-08-06"
PRICE = {
    "input_usd_per_1m": 2.5,
    "output_usd_per_1m": 12.0,
    "cached_read_usd_per_1m": 1.25,
    "tiers": [{"above_tokens": 100_000, "input_usd_per_1m": 5.0, "output_usd_per_1m": 24.0}],
}
FILES = {
    "set-prices": {"currency": "USD", "date": "2026-12-01", "prices": {NAME: PRICE}},
    "set-performance": {"performance": {NAME: {"ttft_s": 0.5, "tpot_s": 0.01}}},
}


@pytest.fixture
def file(tmp_path, request):
    path = tmp_path / "new.json"
    path.write_text(json.dumps(FILES[request.param]))
    return request.param, str(path)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("file", FILES, indirect=True)
def test_without_out_nothing_is_written_into_the_package(file, tmp_path, capsys):
    before = contents(DEFAULT_BUNDLE)
    folder = str(Bundle.load(DEFAULT_BUNDLE).path)
    inside = str(tmp_path / "link")
    (tmp_path / "link").symlink_to(DEFAULT_BUNDLE)
    for options in ([], ["--bundle", folder], ["--bundle", str(DEFAULT_BUNDLE)], ["--out", inside], ["--out", folder]):
        assert main([*file, *options]) == 1
        assert "--out: expected a folder to write the new bundle to, such as --out bundles/" in capsys.readouterr().err
    assert contents(DEFAULT_BUNDLE) == before


@pytest.mark.parametrize("file", FILES, indirect=True)
def test_the_embedded_bundle_is_edited_into_a_folder_of_ones_own(file, tmp_path, capsys):
    assert main([*file, "--out", str(tmp_path / "out")]) == 0
    old, new = Bundle.load(DEFAULT_BUNDLE), Bundle.load(tmp_path / "out")
    assert new.names == old.names
    assert new.quality_heads.sha256 == old.quality_heads.sha256
    if file[0] == "set-prices":
        assert new.prices.prices[NAME].output_usd_per_1m == 12.0
        assert "1 of 11 prices are of 2026-12-01; the others stay, with their day" in capsys.readouterr().out
    else:
        assert {c.name for c in new.candidates if c.performance is not None} == {NAME}


@pytest.mark.parametrize("file", ["set-prices"], indirect=True)
def test_info_tells_of_which_day_prices_are_and_what_else_is_priced(file, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main([*file, "--out", out]) == 0
    capsys.readouterr()
    assert main(["info", "--bundle", out]) == 0
    told = capsys.readouterr().out
    day = Bundle.load(DEFAULT_BUNDLE).prices.date
    assert f"prices of 2026-12-01 (1 of 11), {day} (10 of 11), USD per 1 M tokens" in told
    marked = [line for line in told.splitlines() if "also priced" in line]
    assert len(marked) == 1
    assert marked[0].startswith(NAME)
    assert marked[0].endswith("(also priced: tiers, cached)")
    assert main(["info", "--bundle", out, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["candidates"]}
    assert rows.pop(NAME)["price_date"] == "2026-12-01"
    assert {row["price_date"] for row in rows.values()} == {day}
    assert main(["info"]) == 0
    assert f"prices of {day}, USD" in capsys.readouterr().out
