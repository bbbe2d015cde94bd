"""This room holds one call: its prompts, what its caller says of them, and what each asks for, checked before anything is encoded."""
