"""Intelligent Prompt Routing (arXiv 2509.06274): which LLM should answer this prompt, decided in microseconds."""
