"""The commands: train, compare, evaluate, prepare_data, build_index and warm_start."""
