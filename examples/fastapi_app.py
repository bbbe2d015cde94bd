"""An app of your own that says which model should answer a chat completion.

    pip install -e . fastapi uvicorn         # in the clone
    uvicorn --app-dir examples fastapi_app:app
    curl 'localhost:8000/choose?tau=0.2' --json '{"messages": [{"role": "user", "content": "What is 17 * 23?"}]}'

The bundle is the embedded default, or the folder that IPR_BUNDLE names.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from ipr_engine import AsyncEngine, parse_request
from ipr_engine.errors import DeadlineError, InvalidInputError, IprError, OverloadError, RowError
from ipr_engine.serving import prometheus_text

STATUS_CODES = {InvalidInputError: 400, RowError: 422, OverloadError: 503, DeadlineError: 504}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncEngine.load(os.environ.get("IPR_BUNDLE")) as engine:  # loaded and warm before the first request
        app.state.engine = engine
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/choose")
async def choose(
    request: Request,
    body: Annotated[dict[str, Any], Body()],
    tau: Annotated[
        float, Query(ge=0, le=1, description="mean quality to give up: 0 none, 1 all the way to the cheapest")
    ] = 0.2,
) -> dict[str, Any]:
    engine: AsyncEngine = request.app.state.engine
    decision = await engine.route(parse_request(body), tau=tau)  # a policy is compiled once for each tau
    return {
        "model": decision.model,
        "ranked": decision.ranked,  # who is next when the ones before are down
        "quality": decision.quality,
        "cost_usd": decision.cost_usd,
        "cause": decision.cause,
        "bundle": decision.bundle_hash,
    }


@app.get("/metrics")
async def metrics(request: Request) -> PlainTextResponse:
    return PlainTextResponse(prometheus_text(request.app.state.engine.counters()))


@app.exception_handler(IprError)
async def refused(request: Request, error: IprError) -> JSONResponse:
    """Answer with the error's message, which names the argument and holds no text of the prompt."""
    code = next((code for kind, code in STATUS_CODES.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": {"type": type(error).__name__, "message": str(error)}}, code)
