"""A load generator for OpenAI's text completions: arrivals, streams, what they measured."""
