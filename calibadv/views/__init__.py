"""What a person sees of a run, an evaluation or a study in the terminal."""
