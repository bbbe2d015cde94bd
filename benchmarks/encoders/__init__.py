"""`ipr bench encoder`: every transformer tier of this machine and the peers that are installed, timed in turns on the same prompts."""
