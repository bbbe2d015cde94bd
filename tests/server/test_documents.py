"""What docs/server.md shows of configs can be read, and names what there is."""

import json
import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import skips

TEXT = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
FIGURES = Path(__file__).parents[2] / "benchmarks" / "results" / "server.jsonl"
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.S)


@pytest.fixture(autouse=True)
def _served():
    if find_spec("yaml") is None:
        pytest.skip(skips.SERVE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_config_of_the_page_is_read(block, tmp_path):
    from ipr_engine.server import read_config

    path = tmp_path / "config.yaml"
    path.write_text(block)
    assert read_config(path) is not None


def test_both_files_are_one_config(tmp_path):
    from ipr_engine.server import read_config

    files = BLOCKS[0], BLOCKS[-1]  # upstreams.yaml and config.yaml
    paths = [tmp_path / f"{number}.yaml" for number in range(len(files))]
    for path, block in zip(paths, files, strict=True):
        path.write_text(block)
    config = read_config(*paths)
    assert config.upstreams
    assert config.tenants


def test_the_page_names_every_part_of_a_config():
    from ipr_engine.server import ServerConfig
    from ipr_engine.server.server_config import ServerOptions

    named = {one.name for config in (ServerConfig, ServerOptions) for one in fields(config)}
    assert {name for name in named if not re.search(rf"\b{name}\b", TEXT)} == set()


def test_every_metric_that_the_server_counts_is_on_the_page():
    from ipr_engine.server.server_metrics import ServerMetrics

    written = ServerMetrics().text([]).decode()
    counted = {name for name in re.findall(r"^# TYPE (\w+) ", written, flags=re.M) if not name.endswith("_created")}
    own = counted - set(re.findall(r"^# TYPE (ipr_\w+) ", engine_text(), flags=re.M))
    assert {name for name in own if name not in TEXT} == set()


def test_the_figures_of_the_page_are_those_recorded():
    lines = {(line["what"], line.get("body")): line for line in map(json.loads, FIGURES.read_text().splitlines())}
    shown = set(re.findall(r"^\| .* \| .* \| ([\d,]+) \|$", TEXT, flags=re.M))
    assert {f"{round(line['over_us']):,}" for line in lines.values()} == shown


def test_every_field_of_a_decision_is_on_the_page(default_engine):
    from ipr_engine.audit.exploration import ExplorationDraw
    from ipr_engine.policy.best_position import best_position
    from ipr_engine.request.controls import NO_CONTROLS
    from ipr_engine.server.asked_policy import AskedPolicy
    from ipr_engine.server.decided import AskedRequest, Decided
    from ipr_engine.server.decision_json import decision_dict
    from ipr_engine.server.tenants import ANYBODY

    policy = default_engine.policy(tau=0.2)
    asked = AskedPolicy(policy, policy.exclusions, best_position(policy, default_engine.bundle))
    question = AskedRequest("why", NO_CONTROLS, ANYBODY, "auto")
    decision = default_engine.route("why", policy, task="support-bot")
    drawn = ExplorationDraw(0.1, explores=True, place=0.9).of(decision)
    told = decision_dict(Decided.of("0a", question, asked, decision, 0, drawn))
    table = TEXT[TEXT.index("| field of the reply |") :].partition("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(told)


def engine_text():
    from ipr_engine.serving import Counters, prometheus_text

    return prometheus_text(Counters.sum([]), prefix="ipr")
