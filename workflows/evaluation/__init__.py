"""The evaluation of models on sets of questions: what to ask, asking it, keeping the answers, and the tables."""
