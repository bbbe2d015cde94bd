"""A sentence encoder from its folder or the hub to the files every transformer tier reads (encoders/manifest.py)."""

from ipr_engine.encoders.export.exporter import export_encoder

__all__ = ["export_encoder"]
