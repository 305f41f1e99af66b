"""The commands of `bita`, a module each."""
