"""A load generator for OpenAI's API: arrivals, streams, what they measured."""
