"""OpenAI's responses over chat: items in, items out."""
