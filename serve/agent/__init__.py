"""The trained agent as a service: its own engine, dialogue and search, over OpenAI's API and a page."""
