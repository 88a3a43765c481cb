"""Inputs with time: the button, and a clock that never wraps. Pure."""

DEBOUNCE_MS = 30
LONG_MS = 3000
_HALF = 1 << 29
_WRAP = 1 << 30


class Button:
    """Turns samples of a contact into presses.

    A long press counts while the button is still held, so that its effect does not wait for the hand.
    """

    def __init__(self):
        """Begin with the button up."""
        self._raw = False
        self._raw_since = 0
        self._down = False
        self._down_since = 0
        self._done = False

    def sample(self, now, pressed):
        """Take a sample; return `short`, `long`, or None."""
        if pressed != self._raw:
            self._raw, self._raw_since = pressed, now
        if self._raw != self._down and now - self._raw_since >= DEBOUNCE_MS:
            self._down = self._raw
            if self._down:
                self._down_since, self._done = self._raw_since, False
            elif not self._done:
                return "short"
        if self._down and not self._done and now - self._down_since >= LONG_MS:
            self._done = True
            return "long"
        return None


class Clock:
    """Milliseconds that only grow, from a counter of 30 bits."""

    def __init__(self, ticks):
        """Begin at zero.

        Args:
            ticks: Function that returns the counter; it has to be asked at least once in six days.
        """
        self._ticks = ticks
        self._last = ticks()
        self._now = 0

    def now(self):
        """Return the milliseconds since the beginning."""
        ticks = self._ticks()
        passed = (ticks - self._last + _HALF) % _WRAP - _HALF
        if passed > 0:
            self._now += passed
            self._last = ticks
        return self._now
