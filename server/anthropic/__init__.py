"""Anthropic's messages over chat: blocks in, blocks out."""
