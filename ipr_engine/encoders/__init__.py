"""This room turns prompts into embeddings: base.py is the protocol, tiers.py the table of tiers, registry.py picks the one that serves.

static.py is the table, compiled; onnx.py, openvino.py, torch.py and tensorrt/ run a transformer; export/ writes the files that they read.
"""
