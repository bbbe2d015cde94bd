"""This room reads YAML and JSON that people write into dataclasses; every mistake is told by the key, and the line, it stands at."""
