"""A training run, from its inputs to its summary: resumed, restarted, watched."""
