"""Prompts on which int8 weights are rounded where none are given: a little of what people ask LLMs."""

CALIBRATION_PROMPTS = (
    "Why is the sky blue?",
    "What is the capital of Australia, and how many people live there?",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did Natalia "
    "sell altogether in April and May? Think step by step and give the final number.",
    "Solve for x: 3x^2 - 12x + 7 = 0. Round to two decimals.",
    "Let $f(x) = \\frac{x^2+1}{x-2}$. Find all real $x$ with $f(x) = 5$, and put your answer in \\boxed{}.",
    "def merge(a, b):\n    out = []\n    while a and b:\n        out.append(a.pop(0) if a[0] < b[0] else b.pop(0))\n    "
    "return out + a + b\n\nWhat is its running time, and how can it be made linear?",
    "Write a SQL query that lists every customer who placed more than three orders in 2024, with the sum of what they paid.",
    "My Kubernetes pod is stuck in CrashLoopBackOff with exit code 137. What does that mean and how do I find the cause?",
    "Translate into German: The committee will meet again on Tuesday to discuss next year's budget.",
    "Résume ce texte en deux phrases : Le conseil municipal a voté hier soir la rénovation de la vieille halle du marché.",
    "¿Cuál es la diferencia entre ser y estar? Dame tres ejemplos de cada uno.",
    "请用简单的语言解释什么是量子纠缠。",
    "日本の四季について短い詩を書いてください。",
    "Напиши вежливое письмо коллеге с просьбой перенести встречу на пятницу.",
    "Summarize the following review in one sentence: The battery lasts two days and the screen is gorgeous, but the camera "
    "struggles at night and the phone gets hot while charging. For the price I expected better.",
    "Is this sentence positive, negative or neutral? 'I waited forty minutes for a cold pizza.'",
    "Which of the following is a noble gas?\nA. Nitrogen\nB. Argon\nC. Chlorine\nD. Hydrogen\nAnswer with one letter.",
    "A 54-year-old man presents with crushing chest pain radiating to the left arm for 40 minutes. ECG shows ST elevation in "
    "II, III and aVF. Which artery is most likely occluded?",
    "Under the doctrine of promissory estoppel, when may a promise without consideration be enforced?",
    "Draft a short, friendly e-mail that tells our customers about two hours of maintenance on Sunday night.",
    "Write a limerick about a cat who learns to program in Rust.",
    'Call the right function. Functions: [{"name": "get_weather", "parameters": {"city": "string", "unit": "string"}}]\n'
    "User: Do I need an umbrella in Oslo tomorrow?",
    "Continue the story: The lighthouse had been dark for eleven years when Mara saw the lamp turn.",
    "Give me a seven-day vegetarian meal plan with about 2,000 kcal a day, as a table.",
    "Fix the grammar: he dont knows wether they was going too the libary",
    "What are the pros and cons of index funds compared with picking single stocks?",
    "Explain the difference between TCP and UDP to a ten-year-old.",
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n        self.items.append(item)\n\n"
    "Add pop and peek, raise IndexError when it is empty, and write three unit tests.",
    "If all bloops are razzies and some razzies are lazzies, are some bloops necessarily lazzies? Explain.",
    "Plan a three-day trip to Lisbon for a family with two small children; we like trams, tiles and custard tarts.",
    "hi",
    "thanks, that worked! one more thing: can you make the heading blue?",
)
