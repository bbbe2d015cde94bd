"""This room measures a router on prompts whose outcomes are known. Every figure is defined once, in docs/metrics.md.

    evaluate            makes a summary of an engine and a source of outcomes; evaluation_inputs has its arguments
    read_split          one split, embedded and decided, and the sweeps of the engine on it
    embedded, costs     its prompts, embedded once; what their answers cost at the bundle's prices
    summary             every figure of one router as one dictionary; prediction_lines, contenders and baselines make its parts
    router_interface    what any other router is: fit(train) that returns route(prompts); router_inputs makes what it may see, router_runs
                        runs it and makes it a contender, router_choices reads what it returns; other_routers are some
    promised            promised against kept quality        error_by_support    error against support
    robust_to_edits     the same prompts written otherwise, or with a suffix that searched_suffix finds
    report, markdown    the summary as Markdown and JSON     plots               the summary as PNG
    explanation_plot    one decision as a picture

The measures themselves are in ipr_engine/measures.
"""
