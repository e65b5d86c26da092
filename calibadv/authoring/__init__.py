"""Questions that a model writes from a corpus, each checked by the search and by the model itself."""
