"""The server alone: an engine that answers at once, and a client that costs little."""
