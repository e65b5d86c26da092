"""The commands: train, and later prepare_data, build_index, evaluate and compare."""
