"""The parts of `workflows/prepare_data.py`."""
