"""What a router is worth on prompts whose outcomes are known. Every figure is defined once, in docs/metrics.md.

    evaluate            an engine and a source of outcomes to a summary; evaluation_inputs has what is asked
    embedded, costs     its prompts, embedded once; what their answers cost at the bundle's prices
    summary             every figure of one router as one dictionary; prediction_lines, contenders and baselines make its parts
    promised            promised against kept quality        error_by_support    error against support
    report, markdown    the summary as Markdown and JSON     plots               the summary as PNG
    explanation_plot    one decision as a picture

The measures themselves are in ipr_engine/measures.
"""
