"""`ipr bench encoder` times every transformer tier of this machine and the installed peers in turns on the same prompts."""
