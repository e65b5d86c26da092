"""The commands: train, compare, evaluate, prepare_data, build_index, retrieval_benchmark and warm_start."""
