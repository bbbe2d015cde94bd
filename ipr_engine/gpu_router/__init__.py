"""Text to decision on a GPU: encoder, pooling and decide in one recorded graph per bucket (docs/gpu.md).

    block.py        several arrays in one block on the host and on the device, so that one copy takes them
    gpu_heads.py    a bundle's heads and the policies used lately, on the device
    route_rows.py   what a request brings besides its policy
    router.py       GpuRouter: buckets, recordings, rows to answers; other heads loaded in the stream's order
    route_plan.py   what a loaded bundle holds of all this, and when

cuda/stream_encoder.py says what an encoder offers so that its work can be recorded. Importing this package imports neither
torch nor triton.
"""
