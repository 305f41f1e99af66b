"""The embedded model: what `bita serve` runs when no other is named."""

from pathlib import Path

DEFAULT_MODEL = Path(__file__).parent / "bita-concierge"
DEFAULT_ADAPTER = DEFAULT_MODEL / "bita"
