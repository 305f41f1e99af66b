"""One script a question. The last line of each one's standard output is a JSON document."""
