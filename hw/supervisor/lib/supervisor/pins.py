"""The board around the microcontroller, over I2C: relay, reset line, lamps, button, supply, sensors.

An expander (PCA9552) holds every output in its own registers. It keeps them while this program restarts, which is what
lets the relay stay where it is; without supply its outputs float and the relay falls to the wire.

    0 relay coil   1 reset of the box   4 green   5 amber   6 red     (outputs; on = current flows)
    12 button      13 supply of the box is missing                    (inputs; low = yes)
"""

import _board

EXPANDER = 0x60
THERMOMETER = 0x48
SUPPLY_MONITOR = 0x5E
_INPUT1 = 0x01
_SELECT0 = 0x06
_SELECT1 = 0x07
_PAGE = 0x00
_READ_VOUT = 0x8B
# Two bits for each output of a select register: 00 on, 01 off.
_ALL_OFF = 0x55


class Pins:
    """The board. Every method says in its result whether the board answered; none raises."""

    def __init__(self):
        """Touch nothing yet."""
        self._outputs = None
        self._lamps = None
        self.expander_failed = False

    def through(self):
        """Return how the relay stands in the expander: True when its coil is on; False also when nobody answers."""
        raw = _board.i2c_read(EXPANDER, _SELECT0, 1)
        self.expander_failed = raw is None
        return raw is not None and raw[0] & 3 == 0

    def outputs(self, *, through, reset):
        """Set relay and reset line, and read back that they are set; return True when something changed."""
        wanted = _ALL_OFF & ~((1 if through else 0) | (4 if reset else 0))
        if wanted == self._outputs:
            return False
        _board.i2c_write(EXPANDER, bytes((_SELECT0, wanted)))
        back = _board.i2c_read(EXPANDER, _SELECT0, 1)
        self.expander_failed = back is None or back[0] != wanted
        self._outputs = None if self.expander_failed else wanted
        return True

    def lamp(self, colours):
        """Light colours: the sum of `lamps.GREEN`, `AMBER`, `RED`."""
        if colours == self._lamps:
            return
        wanted = _ALL_OFF
        for number in range(3):
            if colours >> number & 1:
                wanted &= ~(1 << 2 * number)
        if _board.i2c_write(EXPANDER, bytes((_SELECT1, wanted))):
            self._lamps = colours

    def inputs(self):
        """Return whether the button is pressed and whether the box has its supply; None when nobody answers."""
        raw = _board.i2c_read(EXPANDER, _INPUT1, 1)
        if raw is None:
            return None
        return not raw[0] & 0x10, bool(raw[0] & 0x20)

    def check(self):
        """Look whether the expander still holds what it was told; if not, it is told again next time."""
        raw = _board.i2c_read(EXPANDER, _SELECT0, 1)
        if raw is None or raw[0] != self._outputs:
            self._outputs = None
            self._lamps = None

    def celsius(self):
        """Return the temperature in whole degrees, or None."""
        raw = _board.i2c_read(THERMOMETER, 0, 2)
        if raw is None:
            return None
        return raw[0] - 256 if raw[0] > 127 else raw[0]

    def millivolts(self):
        """Return the voltage of the box's main rail, or None."""
        if not _board.i2c_write(SUPPLY_MONITOR, bytes((_PAGE, 0))):
            return None
        raw = _board.i2c_read(SUPPLY_MONITOR, _READ_VOUT, 2)
        return None if raw is None else raw[0] | raw[1] << 8
