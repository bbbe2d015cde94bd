"""This room turns a sentence encoder, from a folder or the hub, into the files that transformer tiers read (encoders/manifest.py)."""

from ipr_engine.encoders.export.exporter import export_encoder

__all__ = ["export_encoder"]
