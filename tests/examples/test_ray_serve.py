"""examples/ray_serve.py on a Ray of its own: what is sent to the replicas crosses processes, and the choice is the engine's."""

import importlib.util
import os
import socket
import sys

import pytest

from ipr_engine import InvalidInputError
from tests.support import skips
from tests.support.loopback import post
from tests.support.places import ROOT

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=skips.RAY),
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning"),  # Ray's own
]
EXAMPLES = str(ROOT / "examples")
SHORT = {"messages": [{"role": "user", "content": "What is 17 * 23?"}]}
LONG = {
    "messages": [{"role": "user", "content": "Prove that the integral of x^2 over its incircle is irrational. " * 9}]
}
POEM = {"messages": "Write a poem about the sea."}
TOOLS = {**SHORT, "tools": [{"type": "function", "function": {"name": "f"}}]}


BODIES = (SHORT, LONG, POEM, TOOLS)


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, EXAMPLES)
    try:
        import ray_serve

        yield ray_serve
    finally:
        sys.path.remove(EXAMPLES)


@pytest.fixture(scope="module")
def port(example):
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when a Ray starts: nothing is reported to anyone
    import ray
    from ray import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), EXAMPLES, os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(example.build({"tau": "0.2", "family": "Claude"}), name="choose", route_prefix="/choose")
        yield port
        serve.shutdown()
    finally:
        ray.shutdown()


def test_the_deployment_of_the_engines_choice_answers(port, default_engine):
    policy = default_engine.policy(tau=0.2, family="claude")
    chosen = [default_engine.route(body, policy) for body in BODIES]
    for body, decision in zip(BODIES, chosen, strict=True):
        figures = {"candidate": decision.model, "quality": decision.quality, "cost_usd": decision.cost_usd}
        assert post(port, "/choose", body) == (200, {"model": decision.model, "choices": [], "ipr": figures})
    assert len({decision.model for decision in chosen}) == 3  # each deployment is asked


def test_a_wrong_request_is_refused(port):
    for wrong in (b"{", {}, {"messages": []}, ["why"]):
        status, answer = post(port, "/choose", wrong)
        assert status == 400
        assert answer["error"]["message"]


def test_a_wrong_policy_is_refused_before_anything_is_deployed(example):
    with pytest.raises(InvalidInputError, match=r"tau: expected .*\[0, 1\]"):
        example.build({"tau": "7"})


def test_where_the_first_deployment_fails_the_next_one_answers(port, example, default_engine):
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Down:
        async def __call__(self, body, decision):
            raise RuntimeError("down")

    policy = default_engine.policy(tau=0.2, family="claude")
    first, second, third = default_engine.route(SHORT, policy).ranked
    models = {
        first: Down.options(name="first").bind(),
        second: example.Model.options(name="second").bind(second),
        third: Down.options(name="third").bind(),
    }
    serve.run(example.Ingress.bind(models, policy, None, {}), name="failing", route_prefix="/failing")
    assert post(port, "/failing", SHORT)[1]["model"] == second
    down = dict.fromkeys(models, Down.options(name="every").bind())
    serve.run(example.Ingress.bind(down, policy, None, {}), name="failing", route_prefix="/failing")
    status, answer = post(port, "/failing", SHORT)
    assert (status, answer["error"]["message"]) == (503, f"none of {first}, {second}, {third} answered")
