"""A dozen prompts of our own, from what the default bundle was fitted on (maths, code reasoning) to what it never saw."""

DEMO_PROMPTS = (
    "A baker makes 14 trays of 12 rolls, sells 9 rolls to each of 15 customers and gives the rest away. How many does she give away?",
    "Maria cycles 18 km to work at 15 km/h and returns at 20 km/h. How many minutes does she spend cycling in a five-day week?",
    "Find the number of ordered pairs of positive integers (a, b) with a + b = 120 such that gcd(a, b) is a perfect square greater than 1.",
    "Let f(x) = x^3 - 6x^2 + 11x - 6. For which real k does f(x) = k have exactly two distinct real solutions? Give the larger one exactly.",
    "def f(s):\n    out = []\n    for i, c in enumerate(s):\n        out.append(c.upper() if i % 3 == 0 else c)\n    return ''.join(out)[::-1]\n\nWhat does f('routing') return?",
    "def g(d):\n    while len(d) > 2:\n        d.pop(min(d, key=lambda k: (d[k], k)))\n    return sorted(d)\n\nWhat is g({'a': 3, 'b': 1, 'c': 2, 'd': 1})?",
    "Three fair dice are rolled. What is the probability that the largest value shown is exactly 4? Answer as a fraction in lowest terms.",
    "What is the capital of Australia?",
    "Write a polite two-line reply that declines a meeting on Friday and proposes Monday morning instead.",
    "Erkläre in drei Sätzen, warum der Himmel blau ist, so dass es ein Kind versteht.",
    "请用一句话解释什么是量子纠缠。",
    "Our Postgres query with three joins became slow after an upgrade: EXPLAIN shows a nested loop over 2 million rows. What would you check first?",
)
