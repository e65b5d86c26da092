"""The checks of `workflows/doctor.py`: what is looked at before a long run, and how it is said."""
