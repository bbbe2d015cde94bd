"""The prompts of one call, what its caller says of them, and what each asks for, checked once before anything is encoded."""
