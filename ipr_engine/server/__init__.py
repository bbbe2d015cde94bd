"""This room serves decisions over HTTP: a decision server, and with upstreams a gateway (docs/server.md)."""

from __future__ import annotations

from ipr_engine.server.app import app
from ipr_engine.server.server_config import ServerConfig, read_config

__all__ = ["ServerConfig", "app", "read_config"]
