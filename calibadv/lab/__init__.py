"""A laboratory: a made-up world in which a search agent of half a million parameters trains in minutes on one core.

The methods, losses, batching, agent, diagnostics and collapse rule are the project's own; the world, the policy, its
sampler and a learner of one process are the laboratory's. No Ray. docs/lab.md has the questions and what was found.
"""
