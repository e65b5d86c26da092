"""What is measured and never shipped: run as `python -m benchmarks.NAME` from the repository's root."""
