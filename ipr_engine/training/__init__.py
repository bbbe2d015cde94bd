"""This room fits heads on outcomes (docs/own-bundle.md). `ipr train` walks through these files in this order:

    train               the recipe; train_options has what it is asked
    training_inputs     reads the candidates' file and the rows
    seen_otherwise      embeds copies of the prompts, written otherwise, where they are asked for
    selection           compares estimators; estimators/ has what may be fitted
    fitted_heads        fits the heads and calibrates them
    fitted_parts        makes the rest of the bundle: tokenizers, support, reliability, path rows

add/ adds a candidate beside frozen heads. distill.py makes an encoder's table.
"""
