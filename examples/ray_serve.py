"""A Ray Serve ingress that chooses the model of each chat completion, and hands the request to the model's own deployment.

    pip install -e . 'ray[serve]'            # in the clone
    serve run --app-dir examples ray_serve:build tau=0.2 family=Claude
    curl localhost:8000 --json '{"messages": [{"role": "user", "content": "What is 17 * 23?"}]}'

The choice is real. `Model` stands where yours is: it answers with its name, and no text.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve import Application
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse

from ipr_engine import Decision, Engine, Policy, parse_request
from ipr_engine.errors import RowError


@serve.deployment(ray_actor_options={"num_cpus": 0})  # a model of yours says here what it needs: GPUs, memory, replicas
class Model:
    """One candidate: call your own model, or its provider, here."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, body: dict[str, Any], decision: Decision) -> dict[str, Any]:
        figures = {"candidate": decision.model, "quality": decision.quality, "cost_usd": decision.cost_usd}
        return {"model": self.name, "choices": [], "ipr": figures}


@serve.deployment(ray_actor_options={"num_cpus": 0.5})
class Ingress:
    """Choose, forward, and go on with who is next when a deployment fails."""

    def __init__(
        self, models: Mapping[str, DeploymentHandle], policy: Policy, bundle: str | None, options: dict[str, Any]
    ) -> None:
        self.models = models
        self.policy = policy  # pickled on its way here; this engine compiles it at the first request
        self.engine = Engine.load(bundle, **options)  # a replica loads its own; it cannot be sent

    async def __call__(self, request: Request) -> JSONResponse:
        try:
            body = await request.json()
            decision = self.engine.route(parse_request(body), self.policy)
        except (ValueError, RowError) as error:  # no JSON, no request, or nobody who can answer it
            return JSONResponse({"error": {"message": str(error)}}, 400)
        for name in decision.ranked:
            try:
                return JSONResponse(await self.models[name].remote(body, decision))
            except (RayError, RayServeException):
                continue  # Ray has logged it; the next one answers
        return JSONResponse({"error": {"message": f"none of {', '.join(decision.ranked)} answered"}}, 503)


def build(args: Mapping[str, str]) -> Application:
    """Return the application of `serve run`. args: tau, and if given bundle, a folder that every node has, and family."""
    engine = Engine.load(args.get("bundle"))
    policy = engine.policy(tau=float(args["tau"]), family=args.get("family"))
    models = {name: Model.options(name=name).bind(name) for name in policy.allowed}
    return Ingress.bind(models, policy, args.get("bundle"), dataclasses.asdict(engine.options))
