"""Supervised warm starts: of the pocket policy on its own world, and of any causal model on gold decompositions."""
