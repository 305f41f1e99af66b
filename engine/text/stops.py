"""Stop strings, found in a text that comes in pieces."""

from __future__ import annotations


class StopChecker:
    """Ends a text before the first of its stop strings (not empty) to be complete.

    include: the text ends behind it instead.

    Reading on from there would be needed to prefer another one, so a stop that begins earlier
    but is complete later loses; of those complete at the same character the longest wins.
    """

    def __init__(self, stops: tuple[str, ...], include: bool = False) -> None:
        self._stops, self._include = stops, include
        self._longest = max(map(len, stops), default=0)
        self._held = ""

    def push(self, text: str, may_stop: bool = True) -> tuple[str, str | None]:
        """The text that is certain now and was not before, and the stop string that ended it.

        Keeps back the longest end that a stop string could begin with. After a stop string nothing
        may be pushed. However a text is divided among calls, the pieces together and the stop
        string are the same. may_stop: whether a stop string that is complete in `text` counts.
        """
        judged, text = len(self._held), self._held + text
        ends = [
            (start + len(stop), start, stop)
            for stop in self._stops
            if (start := text.find(stop, max(0, judged - len(stop) + 1))) >= 0
        ]
        if ends and may_stop:
            end, start, stop = min(ends)
            self._held = ""
            return text[: end if self._include else start], stop
        cut = len(text) - self._num_undecided(text)
        self._held = text[cut:]
        return text[:cut], None

    def finish(self) -> str:
        """What is still kept back; the text ends here."""
        held, self._held = self._held, ""
        return held

    def _num_undecided(self, text: str) -> int:
        """Length of the longest suffix that is a proper prefix of a stop string."""
        for size in range(min(len(text), self._longest - 1), 0, -1):
            end = text[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
