"""The wall time of one training step on GPUs, from shapes and stated assumptions (docs/scaling.md)."""
