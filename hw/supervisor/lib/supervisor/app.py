"""The loop: bytes, button, supply and time go to the rules; their wishes go to the board, the relay first."""

import time

import _board

from supervisor import messages, telemetry, words
from supervisor.cbor import CborError
from supervisor.frames import Decoder, encode
from supervisor.inputs import Button, Clock
from supervisor.keeper import Keeper
from supervisor.lamps import lamp
from supervisor.pins import Pins

WATCHDOG_MS = 1000
INPUTS_MS = 5
SENSORS_MS = 1000
WELL_MS = 10000
HOT_CELSIUS = 85
_FAULT_EXPANDER, _FAULT_RAIL, _FAULT_HOT, _FAULT_LINE = 8, 4, 2, 1


class App:
    """Everything wired together."""

    def __init__(self):
        """Find the board as it is and begin there."""
        _board.watchdog_start(WATCHDOG_MS)
        self.clock = Clock(time.ticks_ms)
        self.pins = Pins()
        self.button = Button()
        self.decoder = Decoder()
        self.keeper = Keeper()
        self.unknown = 0
        self.slowest_ms = 0
        self._sequence = 0
        self._next_inputs = 0
        self._next_sensors = 0
        self._celsius = None
        self._millivolts = None
        self._shown = None
        self._shown_since = 0
        self._kept = None
        self._damaged = 0
        inputs = self.pins.inputs()
        self.keeper.start(
            self.clock.now(),
            through=self.pins.through(),
            kept=_board.kept(),
            how=words.WARM if _board.was_restarted() else words.COLD,
            power=inputs is None or inputs[1],
        )
        self._moves = self.keeper.moves
        # Says how it began. One line; nothing else is printed while all is well.
        print(
            "supervisor: start how={} state={} through={} restarts={}".format(
                "warm" if _board.was_restarted() else "cold",
                self.keeper.state,
                int(self.keeper.through),
                self.keeper.restarts,
            )
        )

    def run(self):
        """Work for ever."""
        while True:
            self.step()
            _board.link_wait(2)

    def step(self):
        """Take what has come, act, send."""
        _board.watchdog_feed()
        now = self.clock.now()
        data = _board.link_read()
        if data:
            self._take(now, data)
        if now >= self._next_inputs:
            self._next_inputs = now + INPUTS_MS
            self._look(now)
        self.keeper.tick(now)
        self._drive()
        if now >= self._next_sensors:
            self._next_sensors = now + SENSORS_MS
            self._measure(now)
        self._remember()
        self._lamp(now)
        self._talk()

    def _drive(self):
        """Move relay and reset line as wished, and note how long after the cause that was."""
        self.pins.outputs(through=self.keeper.through, reset=self.keeper.reset)
        if self.keeper.moves != self._moves:
            self._moves = self.keeper.moves
            self.slowest_ms = min(max(self.slowest_ms, self.clock.now() - self.keeper.event_ms), 65535)

    def _take(self, now, data):
        # The rules count from when the line was heard, not from when this loop came round to it.
        arrived = now - max(time.ticks_diff(time.ticks_ms(), _board.link_heard_ms()), 0)
        for body in self.decoder.feed(data):
            try:
                kind, values = messages.parse(body)
            except CborError:
                self.unknown += 1
                continue
            if kind == messages.QUERY:
                self._answer(now, values[0])
            else:
                self.keeper.message(arrived, kind, values)
                self._drive()

    def _answer(self, now, what):
        if what == messages.ASK_STATUS:
            body = self.keeper.status(now, self.decoder, self.unknown, self.slowest_ms)
        else:
            pack = telemetry.pack(
                celsius=self._celsius,
                millivolts=self._millivolts,
                through=self.keeper.through,
                moves=self.keeper.moves,
                restarts=self.keeper.restarts,
                uptime_s=now // 1000,
                past_s=self.keeper.past_ms(now) // 1000,
            )
            body = messages.build(messages.TELEMETRY, pack)
        self._send(body)

    def _look(self, now):
        inputs = self.pins.inputs()
        if inputs is None:
            return
        press = self.button.sample(now, inputs[0])
        if press:
            self.keeper.press(now, long=press == "long")
        self.keeper.power(now, present=inputs[1])

    def _measure(self, now):
        if now >= WELL_MS:
            _board.runs_well()
        self.pins.check()
        self._celsius = self.pins.celsius()
        self._millivolts = self.pins.millivolts()
        self.keeper.rail(self._millivolts)
        faults = _FAULT_EXPANDER if self.pins.expander_failed else 0
        if self._millivolts is not None and self._millivolts < words.RAIL_LOW_MV:
            faults |= _FAULT_RAIL
        if self._celsius is not None and self._celsius >= HOT_CELSIUS:
            faults |= _FAULT_HOT
        if self.decoder.damaged - self._damaged > 1:
            faults |= _FAULT_LINE
        self._damaged = self.decoder.damaged
        self.keeper.faults = faults

    def _remember(self):
        mark = (self.keeper.moves, self.keeper.state, self.keeper.resets, self.keeper.supply.serial)
        if mark != self._kept:
            self._kept = mark
            _board.keep(self.keeper.kept())

    def _lamp(self, now):
        shown = self.keeper.shown(now)
        if shown != self._shown:
            self._shown, self._shown_since = shown, now
        self.pins.lamp(lamp(*shown, self.keeper.code(), now - self._shown_since))

    def _talk(self):
        while self.keeper.outbox:
            self._send(self.keeper.outbox.pop(0))

    def _send(self, body):
        _board.link_write(encode(self._sequence, body))
        self._sequence = self._sequence + 1 & 0xFFFF
