"""This room collects outcomes: prompts are asked of every candidate, answers are graded, and what it cost is counted, call by call."""
