"""A folder of documents as people have them (Markdown, HTML, PDF, Office) -> passages of a corpus."""
