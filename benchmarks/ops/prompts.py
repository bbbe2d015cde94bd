"""Prompts to time with have about 300 characters each, and are of the kinds people send to language models."""

# ruff: noqa: E501

ASCII = (
    "Write a Python function that merges two sorted lists into one sorted list without using the built-in sort. Keep "
    "duplicates, handle the case where either list is empty, and return a new list. Then explain its time and space "
    "complexity in two sentences and show three short test cases, one with negative numbers.",
    "I have a job interview next Tuesday for a position as a warehouse shift supervisor. I've never managed more than "
    "two people before. Can you list ten questions they will probably ask me and, for each one, a short honest answer "
    "that makes the most of my three years on the night shift? Please keep the tone modest.",
    "Which of the following best explains why the boiling point of water is lower at high altitude?\nA. The air is "
    "colder\nB. The atmospheric pressure is lower\nC. There is less oxygen\nD. Gravity is weaker\nE. The sunlight is "
    "stronger\nThink step by step, then finish with a single line that reads: Answer: (letter). Do not add more.",
    "Summarize this e-mail thread in at most five bullet points, and mark every action item with its owner and date: "
    "Anna wants the venue booked by 14 March, Bob says the budget is capped at $4,200 (incl. VAT), Carla can't confirm "
    "the speaker before Friday, and Dev asks whether we'd still print 250 programmes or go digital-only.",
    "SELECT o.id, c.name, SUM(l.qty * l.price) AS total FROM orders o JOIN customers c ON c.id = o.customer_id JOIN "
    "lines l ON l.order_id = o.id WHERE o.created_at >= '2024-01-01' GROUP BY o.id, c.name HAVING SUM(l.qty * l.price) "
    "> 1000; This query takes 40 seconds on 12M rows. What indexes would you add first, and why?",
    "Janet's train leaves at 9:40 and travels at 84 km/h. Forty minutes later her brother drives after it at 120 km/h "
    "on a road beside the track. How many kilometres from the station does he catch up, and at what time? Show the "
    "equations you set up, solve them exactly, and check the result by plugging it back in at the end.",
    "Translate the following paragraph into plain English that a twelve year old could follow, without losing any "
    "legal meaning: The lessee shall indemnify and hold harmless the lessor against all claims, liabilities and "
    "expenses arising from the lessee's use of the premises, save where caused by the lessor's gross negligence.",
    "You are a dungeon master. My character, a clumsy halfling bard named Pip Underbough, has just knocked over a shelf "
    "of potions in the wizard's tower. Describe in vivid detail what happens next, offer me three choices, and keep a "
    "running inventory at the bottom of each reply. I currently own: 1 lute, 2 torches, 11 gold, and a cheese.",
    "def parse(line):\n    key, _, value = line.partition('=')\n    return key.strip(), value.strip()\n\nwith open(path) as "
    "f:\n    cfg = dict(parse(l) for l in f if l and not l.startswith('#'))\n\nWhy does this crash with a ValueError "
    "never, but silently keep blank lines as ('', '')? Fix it with the smallest possible change, please.",
    "My sourdough starter smells like acetone after I left it in the fridge for three weeks. Is it still safe to use? "
    "If so, walk me through reviving it day by day: how much flour and water by weight, what temperature, when to "
    "discard, and how I can tell that it's ready to raise a loaf of about 900 grams with 70 percent hydration.",
    "Compare the causes of the French and the Haitian revolutions in about 250 words. Focus on taxation, slavery, the "
    "role of the military, and the spread of pamphlets; cite at least two historians by name; and end with one "
    "question that a good seminar could discuss. Avoid bullet points and avoid the words 'complex' and 'multifaceted'.",
    "Extract every person, organisation and amount from the text and return valid JSON with the keys people, orgs and "
    'amounts, nothing else: "On 3 May, Okafor & Sons Ltd. paid EUR 18,450.75 to Northwind Logistics; the transfer was '
    'approved by M. Lindqvist and J. de Souza, and a further 2,000 was held back until delivery." Use null for unknown.',
    "Prove that the square root of 2 + the square root of 3 is irrational. Start from the assumption that it's rational, "
    "square both sides, and be explicit about each step; do not use any theorem beyond the fact that the square root of "
    "6 is irrational, which you should also prove. Finish with a short remark on how this generalizes.",
    "What's the weather likely to be like in Lisbon in the second week of November, and what should I pack for five days "
    "if I'm only taking a 20 litre backpack? I run cold, I plan to walk a lot, and I have one dinner at a fairly formal "
    "restaurant on the Thursday. No more than twelve items, grouped by day and night.",
    "kubectl get pods shows CrashLoopBackOff for api-6f7c9d5b8-xk2lp; logs end with 'dial tcp 10.0.3.17:5432: connect: "
    "connection refused'. The Postgres StatefulSet is Running 1/1 and I can psql from my laptop via port-forward. "
    "NetworkPolicies exist in the namespace. Give me a checklist, most likely cause first, with exact commands.",
    "Rewrite this so that it sounds warmer but isn't any longer: 'Your application was unsuccessful. We received 412 "
    "applications and cannot give individual feedback. You may re-apply after six months.' Give me three versions, from "
    "the most formal to the most casual, and tell me which one you'd send to a student who applied for the first time.",
    "Given an array nums of n integers and an integer k, return the length of the longest contiguous subarray whose sum "
    "is at most k. Constraints: 1 <= n <= 200000, -10^9 <= nums[i] <= 10^9. Input format: first line n and k, second "
    "line the numbers. Write C++17 that runs in O(n log n) and comment on why the sliding window fails.",
    "A 54-year-old man with type 2 diabetes presents with a two-day history of a swollen, painful, red left calf after a "
    "nine-hour flight. His D-dimer is 1.8 mg/L and his Wells score is 4. Which investigation should be done next, and "
    "which anticoagulant would be first-line given an eGFR of 38 mL/min? Explain for a junior doctor.",
    "hey can u help me w/ my essay?? its about wether phones shud be banned in skools, i think no bc u need them 4 "
    "emergencys n stuff but my teacher sed i need 2 sides lol. pls give me like 3 reasons 4 each side and make it sound "
    "like me not like a robot, around 200 words, and dont use big words i cant spell, thx so much!!!",
    "Classify the sentiment of each review as positive, negative or mixed, one word per line, in order.\n1) Arrived late, "
    "but works like a charm.\n2) Broke after two days; refund refused.\n3) Exactly what I needed, 10/10.\n4) It's fine, "
    "I guess.\n5) The colour is off, the smell is awful, yet my cat adores it.\n6) Never again.",
)

OTHER = (
    "Écris un résumé d'environ cent mots du troisième chapitre, où l'héroïne découvre la lettre cachée derrière la "
    "cheminée. Évite les phrases trop longues, garde un ton neutre, et termine par une question ouverte qui prépare le "
    "lecteur à la révélation du quatrième chapitre. Précise aussi où et quand se déroule l'action.",
    "Können Sie mir bitte erklären, warum mein Steuerbescheid für 2023 höher ausfällt als im Vorjahr, obwohl sich mein "
    "Gehalt nicht geändert hat? Ich habe im März geheiratet, größere Werbungskosten gehabt und ein häusliches "
    "Arbeitszimmer abgesetzt. Welche Fristen muss ich für einen Einspruch beachten?",
    "Напиши короткое деловое письмо поставщику: мы получили партию от двенадцатого мая, но в трёх коробках из сорока "
    "повреждена упаковка, а в одной не хватает восьми изделий. Попроси прислать недостающее до конца месяца и "
    "предложи скидку на следующую поставку. Тон вежливый, но твёрдый; не больше ста слов.",
    "请用简单的语言解释什么是量子纠缠，并举两个生活中的比喻，说明它为什么不能用来超光速传递信息。要求：一、总字数不超过四百字；二、不要使用任何公式；三、最后给出三个适合高中生继续思考的问题。"
    "如果有常见的误解，请逐条指出并纠正，例如“纠缠粒子之间有看不见的线”这种说法到底错在哪里。另外请推荐两本中文科普书，并说明理由。",
    "来月の京都旅行の計画を立ててください。二泊三日で、紅葉の名所を中心に、混雑を避けられる時間帯とバスの乗り換えも教えてほしいです。"
    "予算は一人あたり五万円、宿は町家を改装した旅館がいいです。雨の日の代わりの案と、カメラを持って行くべきかどうかも、理由と一緒に書いてください。",
    "우리 회사의 신제품 출시를 알리는 보도자료를 작성해 주세요. 제품은 휴대용 공기청정기이고 무게는 320그램, 가격은 8만 9천 원입니다. 첫 문단에는 핵심 내용을, "
    "둘째 문단에는 개발 배경을, 마지막에는 대표의 인용문을 넣어 주세요. 과장된 표현은 피하고 500자 이내로 부탁합니다.",
    "اكتب لي خطة دراسية لمدة أربعة أسابيع للتحضير لاختبار الرياضيات، على أن تكون ساعتين يوميا فقط، مع تقسيم المواضيع بين "
    "الجبر والهندسة والإحصاء، وإضافة اختبار قصير في نهاية كل أسبوع، ونصائح للتعامل مع التوتر قبل الامتحان.",
    "Review 👩‍💻👍: “The new café’s naïve façade…” — is the em-dash ok here, and should I write “résumé” or “resume”? "
    "Prices are €12.50–£9.80 (≈ ¥2 000). Fix typos, keep the emoji 🎉🎉, and don’t change ½ or ™. Also: İstanbul vs. "
    "Istanbul, Ærø, Łódź, São Paulo – which spellings would you keep for an English travel blog? 🌍✈️",
)
