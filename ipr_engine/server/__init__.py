"""This room serves decisions over HTTP: a decision server, and with upstreams a gateway (docs/server.md). It needs the extra [serve]."""

from __future__ import annotations

from ipr_engine._extras import need

need("orjson", "ipr_engine.server", "serve")  # said once, before a module of this room misses it

from ipr_engine.server.app import app  # noqa: E402
from ipr_engine.server.server_config import ServerConfig, read_config  # noqa: E402

__all__ = ["ServerConfig", "app", "read_config"]
