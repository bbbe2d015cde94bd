"""Text to decision on a GPU: encoder, pooling and decide in one recorded graph per bucket (docs/gpu.md).

    buffers.py   what travels in one copy: a block on the host and on the device
    heads.py     a bundle's heads and policies on the device
    encoder.py   what an encoder offers so that its work can be recorded; the tensorrt tier's adapter
    router.py    GpuRouter: buckets, recordings, rows to answers; other heads loaded in the stream's order
    side.py      what a loaded bundle holds of all this, and when

Importing this package imports neither torch nor triton. No line of the CUDA path has been executed yet.
"""
