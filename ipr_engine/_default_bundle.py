"""Where the bundle in the wheel stands, stated once."""

from pathlib import Path

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"  # a bundle root
