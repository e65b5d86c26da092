"""The measurements of `workflows/retrieval_benchmark.py`, one a file, each giving rows of a table."""
