"""The commands: train, compare and warm_start."""
