"""Which cluster works is checked before anything is begun."""

from __future__ import annotations

import importlib.util
import json

import pytest

from ipr_engine.cli.main import main
from ipr_engine.errors import InvalidInputError
from ipr_engine.on_ray.cluster import RayCluster
from tests.support import skips
from tests.support.bundles import make_encoder
from tests.support.places import ROOT


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"address": "ray://head:10001"},
            "address: expected 'local', 'auto' or HOST:PORT, got 'ray://head:10001'; ledger and cache lie",
        ),
        ({"address": ""}, "address: expected 'local'"),
        ({"workers": 0}, "workers: expected 1 to 10000, got 0"),
        ({"cpus": 0.0}, "cpus: expected more than 0"),
        ({"gpus": -1.0}, "gpus: expected 0 to 64, got -1"),
        ({"cpus": float("nan")}, "cpus: expected more than 0"),
    ],
)
def test_what_no_cluster_can_be_is_refused(settings, told):
    with pytest.raises(InvalidInputError, match=told):
        RayCluster(**settings)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--ray-workers", "2"], "--ray-workers: stands without --ray"),
        (["--ray", "ray://head:1"], "--ray: expected 'local'"),
        (["--ray", "local", "--ray-gpus", "-1"], "--ray-gpus: expected 0 to 64"),
        (["--ray", "local", "--dry-run"], "--ray: stands beside --dry-run"),
    ],
)
def test_an_option_is_named_by_its_flag(tmp_path, capsys, flags, told):
    (tmp_path / "plan.yaml").write_text("prompts: x.jsonl\n")
    assert main(["collect", str(tmp_path / "plan.yaml"), *flags]) == 1
    assert told in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=skips.RAY)
def test_the_command_embeds_on_a_cluster_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # of another cluster, which is none of ours
    source, folder = tmp_path / "made", make_encoder(tmp_path / "table")
    source.mkdir()
    (source / "prompts.csv").write_text("prompt_id,prompt\n" + "".join(f"p{n},prompt {n}\n" for n in range(50)))
    (source / "outcomes.csv").write_text("prompt_id,model,quality\np1,m,1\n")
    flags = ["--encoder", str(folder), "--cache", str(tmp_path / "cache"), "--ray", "local", "--ray-workers", "1"]
    assert main(["data", "embed", str(source), *flags, "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["prompts"] == 50
    assert "50 of 50 prompts embedded" in captured.err
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
