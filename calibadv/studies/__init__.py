"""A comparison: cells x seeds from one TOML file, run side by side on Ray Tune, and the study's tables and figures."""
