"""One page a run, or one over many: a file that needs no server and nothing from outside."""
