"""This room decides on a GPU: encoder, pooling and decide run in one recorded graph per bucket (docs/gpu.md).

    route_plan.py   GpuRoutePlan: a loaded bundle's part of the GPU path, and the bundles that have one
    router.py       GpuRouter: rows to answers through recordings; GpuHeads: heads and policies on the device
    route_slot.py   RouteSlot: the buffers and the recording of one bucket
    route_rows.py   RouteRows: the arguments of a request besides its policy

cuda/buckets.py says what an encoder offers so that its work can be recorded (StreamEncoder). Importing this package imports
neither torch nor triton.
"""
