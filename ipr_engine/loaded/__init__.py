"""This room holds a bundle planned for this machine, and the walk from prompts to decisions on it (loaded_bundle.py)."""
