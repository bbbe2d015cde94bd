"""What every tier on a GPU shares: recordings, buckets of shapes, the driver."""

EMULATED = "emulated"  # the name of the device that takes the steps of the CUDA path on the CPU
