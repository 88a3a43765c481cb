"""The rules: when the wire leads through the box, when past it, and when the box is reset.

Pure: facts come in with their time (milliseconds, ever growing), wishes go out as attributes. Nothing here touches
hardware, and every rule for the relay is in `_settle` and `_close`.

Rules:
- The wire leads through the box only while the box says so itself, again and again: each report is a lease. Three
  reports in a row, with no lease ending between them, open it; one missing closes it.
- What the box announces, what the owner's button says and a lost supply close it at once.
- After an unannounced end the next opening waits, longer each time, so that a bad line or a crashing box does not
  make the relay chatter.
- A silent box is warned, then reset; after three resets without success it is left alone, with the wire past it.
"""

import struct

from supervisor import VERSION, messages
from supervisor.lamps import CODE_ROUND_MS, RESULT_FAILED, RESULT_OK
from supervisor.supply import Supply
from supervisor.words import (
    ARM_REPORTS,
    CAUSE_ANNOUNCED,
    CAUSE_BOX_RESTARTED,
    CAUSE_BUTTON,
    CAUSE_COLD,
    CAUSE_COMMAND,
    CAUSE_POWER,
    CAUSE_SELF,
    CAUSE_SILENCE,
    CAUSE_STOPPED,
    COLD,
    GIVEN_UP,
    GRACE_MS,
    HOLD_FIRST_MS,
    HOLD_FORGET_MS,
    HOLD_LAST_MS,
    LEASE_MAX_MS,
    MAX_OUTBOX,
    PASS_BUTTON_MS,
    PASSING,
    POWER_BROWN_OUT,
    POWER_DIP,
    PROTECTING,
    RECOVERING,
    RESET_PULSE_MS,
    RESETS_BY_WISH,
    STABLE_MS,
    STARTING,
    UPDATING,
    WARM,
    WISH_WINDOW_MS,
)

_KEPT = ">BBBBIHHIHI"


class Keeper:
    """State of wire, box and supply.

    Attributes:
        through: The wire leads through the box (the relay is energised).
        reset: The box's reset line is to be pulled.
        state: One of the six states.
        cause: Why the wire last went past the box.
        moves: How often the relay has moved since the supervisor had its supply.
        event_ms: When what made it move happened.
        resets: Resets of a silent box since it was last stable.
        restarts: How often the supervisor itself was restarted by its watchdog.
        outbox: Bodies to send, oldest first; the caller empties it.
    """

    def __init__(self):
        """Know nothing yet; call `start` next."""
        self.through = False
        self.reset = False
        self.state = STARTING
        self.cause = CAUSE_COLD
        self.moves = 0
        self.event_ms = 0
        self.resets = 0
        self.restarts = 0
        self.boot_ms = 600000
        self.silence_ms = 60000
        self.resets_allowed = 3
        self.supply = Supply()
        self.box_code = 0
        self.faults = 0
        self.outbox = []
        self.result = 0
        self._result_end = 0
        self._code_end = 0
        self._streak = 0
        self._lease = GRACE_MS
        self._lease_end = 0
        self._last_report = 0
        self._barred = False
        self._adopted = False
        self._hold = 0
        self._hold_end = 0
        self._opened_at = 0
        self._past = 0
        self._past_since = None
        self._since = 0
        self._deadline = 0
        self._warned = False
        self._reset_end = 0
        self._pass_end = 0
        self._box_boot = None
        self._answered = None
        self._wishes = []
        self._requests = {
            messages.ANNOUNCE: self._announce,
            messages.WIRE: self._wire,
            messages.SHOW: self._show,
            messages.CODE: self._code,
            messages.RESET: self._reset,
            messages.SETTINGS: self._settings,
        }

    def start(self, now, *, through, kept, how, power=True):
        """Begin.

        Args:
            now: Milliseconds.
            through: How the relay was found.
            kept: What `kept` returned before a restart, or None.
            how: COLD, or WARM after the watchdog.
            power: The box has its supply.
        """
        self._since = self._last_report = now
        self._deadline = now + self.boot_ms
        self.supply.begin(now, present=power)
        self.through = through
        self._past_since = None if through else now
        if how == WARM and kept is not None:
            self._restore(now, kept)
        if through and self.state in {STARTING, PROTECTING, RECOVERING} and power:
            # The relay outlived a restart of this program. The box goes on reporting within a lease, or that ends.
            self.state = PROTECTING
            self._opened_at = now
            self._streak = ARM_REPORTS
            self._lease_end = now + self._lease
            self._adopted = True
        elif through:
            self._close(now, CAUSE_SELF)
        elif self.state == PROTECTING:
            self._enter(now, RECOVERING)
        self._welcome(how)

    def message(self, now, kind, values):
        """Take a message of the box. Kinds that only the supervisor sends have no effect."""
        if kind == messages.REPORT:
            self._report(now, values[0], values[1])
        elif kind == messages.HELLO:
            self._hello(now, values[1])
        elif kind in self._requests:
            identity = values[0]
            if self._answered is None or self._answered[0] != (kind, identity):
                self._answered = ((kind, identity), self._requests[kind](now, values))
            self._send(messages.ANSWER, identity, self._answered[1])

    def press(self, now, *, long):
        """Take a press of the button: a short one shows the code, a long one lets everything pass, or ends that."""
        if not long:
            self._code_end = now + 2 * CODE_ROUND_MS
            self._send(messages.EVENT, messages.EVENT_BUTTON_SHORT, self.code())
            return
        if self.state == PASSING:
            self._restart_watch(now)
        elif self.state == GIVEN_UP:
            self.resets = 0
            self._restart_watch(now)
        else:
            self._pass(now, PASS_BUTTON_MS, CAUSE_BUTTON)
        self._send(messages.EVENT, messages.EVENT_BUTTON_LONG, self.state)

    def power(self, now, *, present):
        """Take the state of the box's supply."""
        if present == self.supply.present:
            return
        if not present:
            self.supply.lose(now)
            self._streak = 0
            self._barred = False
            self.reset = False
            if self.state not in {GIVEN_UP, PASSING}:
                self._enter(now, STARTING)
            self._close(now, CAUSE_POWER)
            self._send(messages.EVENT, messages.EVENT_POWER_LOST, 0)
            return
        kind = self.supply.gain(now)
        if kind != POWER_DIP:
            self.resets = 0
        if kind != POWER_DIP or self.state == STARTING:
            self._restart_watch(now)
        self._send(messages.EVENT, messages.EVENT_POWER_BACK, self.supply.outage_ms)

    def rail(self, millivolts):
        """Take the voltage of the box's main rail; None when it cannot be read."""
        if self.supply.rail(millivolts):
            self._send(messages.EVENT, messages.EVENT_BROWN_OUT, millivolts)

    def tick(self, now):
        """Let time pass; to be called at least every few milliseconds."""
        if self.reset and now >= self._reset_end:
            self.reset = False
        if self._streak and now >= self._lease_end:
            self._streak = 0
            if self.through:
                self._enter(now, RECOVERING)
                self._close(now, CAUSE_SELF if self._adopted else CAUSE_SILENCE)
                self.event_ms = self._lease_end
                self._adopted = False
                self._wait_longer(now)
        if self.supply.present:
            self._watch(now)
        self._settle(now)

    def status(self, now, decoder, unknown, slowest_ms):
        """Return the body of a status message.

        Args:
            now: Milliseconds.
            decoder: Counts what came in.
            unknown: Whole frames that were no message.
            slowest_ms: Longest time from an event to the relay (milliseconds).
        """
        return messages.build(
            messages.STATUS,
            self.state,
            1 if self.through else 0,
            self.cause,
            self.moves,
            self.resets,
            self.code(),
            decoder.good,
            decoder.damaged,
            decoder.lost,
            unknown,
            now // 1000,
            slowest_ms,
            self.restarts,
        )

    def past_ms(self, now):
        """Return for how long the wire has led past the box since `start`."""
        return self._past + (0 if self._past_since is None else now - self._past_since)

    def code(self):
        """Return the four digits that the red lamp can blink."""
        if self.box_code and self.state == PROTECTING:
            return self.box_code
        health = 1
        for digit, bit in ((5, 8), (4, 4), (3, 2), (2, 1)):
            if self.faults & bit:
                health = digit
        return self.state * 1000 + self.cause * 100 + min(self.resets + 1, 9) * 10 + health

    def shown(self, now):
        """Return what the lamps show: state, result (0 for none) and whether the code is asked for."""
        result = self.result if now < self._result_end else 0
        return self.state, result, now < self._code_end

    def kept(self):
        """Return what has to outlive a restart of this program, the relay excepted."""
        passing = max(self._pass_end - self._since, 0) if self.state == PASSING else 0
        return struct.pack(
            _KEPT,
            self.state,
            self.cause,
            min(self.resets, 255),
            self.supply.kind,
            self.moves & 0xFFFFFFFF,
            min(self.restarts, 65535),
            self.supply.serial & 0xFFFF,
            min(passing, 0xFFFFFFFF),
            self._lease,
            min(self.supply.outage_ms, 0xFFFFFFFF),
        )

    def _restore(self, now, kept):
        if len(kept) != struct.calcsize(_KEPT):
            return
        fields = struct.unpack(_KEPT, kept)
        state, cause = fields[0], fields[1]
        if not STARTING <= state <= GIVEN_UP or not CAUSE_COLD <= cause <= CAUSE_SELF or fields[3] > POWER_BROWN_OUT:
            return
        self.state = RECOVERING if state == UPDATING else state
        self.cause, self.resets, self.supply.kind = cause, fields[2], fields[3]
        self.moves, self.restarts, self.supply.serial = fields[4], min(fields[5] + 1, 65535), fields[6]
        self._pass_end = now + min(fields[7], 3600000)
        self._lease = min(max(fields[8], GRACE_MS), LEASE_MAX_MS)
        self.supply.outage_ms = fields[9]

    # The relay.

    def _settle(self, now):
        """Lead the wire through the box if everything speaks for it."""
        if self.through or self.state in {PASSING, GIVEN_UP} or not self.supply.present or self._barred:
            return
        if self._streak < ARM_REPORTS or now >= self._lease_end or now < self._hold_end:
            return
        self._past = self.past_ms(now)
        self._past_since = None
        self.through = True
        self.moves += 1
        self.event_ms = now
        self._opened_at = now
        self._adopted = False
        self._enter(now, PROTECTING)
        self._send(messages.EVENT, messages.EVENT_WIRE, 1)

    def _close(self, now, cause):
        """Lead the wire past the box."""
        self.cause = cause
        if self.through:
            self.through = False
            self._past_since = now
            self.moves += 1
            self.event_ms = now
            self._send(messages.EVENT, messages.EVENT_WIRE, 0)

    def _wait_longer(self, now):
        """After an unannounced end: the sooner it came, the longer the next opening waits."""
        if now - self._opened_at >= HOLD_FORGET_MS:
            self._hold = 0
        self._hold = min(max(2 * self._hold, HOLD_FIRST_MS), HOLD_LAST_MS)
        self._hold_end = now + self._hold

    # What the box says.

    def _report(self, now, said, lease):
        self._last_report = now
        self._warned = False
        if said == messages.BOX_FORWARDING:
            if self._barred:
                return
            self._streak = min(self._streak + 1, ARM_REPORTS)
            self._lease = lease
            self._lease_end = now + lease
            self._adopted = False
            self._settle(now)
            return
        self._streak = 0
        if said == messages.BOX_STARTING:
            self._barred = False
        if self.through:
            self._close(now, CAUSE_STOPPED)
        if self.state in {PROTECTING, RECOVERING}:
            self._restart_watch(now)

    def _hello(self, now, boot):
        if boot != self._box_boot:
            known = self._box_boot is not None
            self._box_boot = boot
            self._barred = False
            self._answered = None
            self.box_code = 0
            if known:
                self._streak = 0
                if self.through:
                    self._close(now, CAUSE_BOX_RESTARTED)
                    self._wait_longer(now)
                if self.state in {PROTECTING, RECOVERING}:
                    self._restart_watch(now)
        self._welcome(WARM if self.restarts else COLD)

    def _announce(self, now, values):
        self._barred = True
        self._streak = 0
        if self.state not in {PASSING, GIVEN_UP}:
            self._enter(now, UPDATING)
            self._deadline = now + values[2] * 1000
        self._close(now, CAUSE_ANNOUNCED)
        return messages.DONE

    def _wire(self, now, values):
        seconds = values[1]
        if self.state == GIVEN_UP or (self.state == PASSING and self.cause == CAUSE_BUTTON):
            return messages.OWNER_DECIDED
        if seconds:
            self._pass(now, seconds * 1000, CAUSE_COMMAND)
        elif self.state == PASSING:
            self._restart_watch(now)
        return messages.DONE

    def _show(self, now, values):
        if values[1] not in {0, RESULT_OK, RESULT_FAILED}:
            return messages.REFUSED
        self.result = values[1]
        self._result_end = now + values[2] * 1000
        return messages.DONE

    def _code(self, _now, values):
        self.box_code = values[1]
        return messages.DONE

    def _reset(self, now, _values):
        """Reset the box because it asks for it itself; a box that asks too often is not trusted with that."""
        self._wishes = [then for then in self._wishes if now - then < WISH_WINDOW_MS]
        if len(self._wishes) >= RESETS_BY_WISH or self.state == GIVEN_UP:
            return messages.TOO_OFTEN
        self._wishes.append(now)
        self._pull_reset(now)
        if self.state != PASSING:
            self._restart_watch(now)
        self._close(now, CAUSE_ANNOUNCED)
        return messages.DONE

    def _settings(self, _now, values):
        waiting = self.state == STARTING
        before = self.boot_ms
        self.boot_ms, self.silence_ms, self.resets_allowed = values[1] * 1000, values[2] * 1000, values[3]
        if waiting:
            self._deadline += self.boot_ms - before
        return messages.DONE

    # The watch over the box.

    def _watch(self, now):
        if self.state == PROTECTING:
            if self.resets and now - self._opened_at >= STABLE_MS:
                self.resets = 0
        elif self.state == PASSING:
            if now >= self._pass_end:
                self._restart_watch(now)
        elif self.state == UPDATING:
            if now >= self._deadline:
                self._barred = False
                self._enter(now, RECOVERING)
                self._last_report = now
        elif self.state == STARTING:
            if now >= self._deadline and self._streak < ARM_REPORTS:
                self._escalate(now)
        elif self.state == RECOVERING:
            self._watch_silence(now)

    def _watch_silence(self, now):
        silent = now - max(self._last_report, self._since)
        if silent >= self.silence_ms:
            self._escalate(now)
        elif silent >= self.silence_ms // 6 and not self._warned:
            self._warned = True
            self._send(messages.EVENT, messages.EVENT_WARNED, silent)

    def _escalate(self, now):
        if self.resets >= self.resets_allowed:
            self._enter(now, GIVEN_UP)
            self._close(now, self.cause)
            self._send(messages.EVENT, messages.EVENT_GAVE_UP, self.resets)
            return
        self.resets += 1
        self._pull_reset(now)
        self._restart_watch(now)
        self._send(messages.EVENT, messages.EVENT_RESET, self.resets)

    def _pull_reset(self, now):
        self.reset = True
        self._reset_end = now + RESET_PULSE_MS
        self._streak = 0
        self._barred = False

    def _restart_watch(self, now):
        """Wait for the box to forward, as after its start."""
        self._enter(now, STARTING)
        self._deadline = now + self.boot_ms

    def _pass(self, now, duration, cause):
        self._enter(now, PASSING)
        self._pass_end = now + duration
        self._close(now, cause)

    def _enter(self, now, state):
        self.state = state
        self._since = now
        self._warned = False

    # What the box is told.

    def _welcome(self, how):
        self._send(
            messages.WELCOME,
            messages.PROTOCOL,
            VERSION,
            how,
            min(self.restarts, 65535),
            self.supply.serial,
            self.supply.kind,
            self.supply.outage_ms,
        )

    def _send(self, kind, *values):
        if len(self.outbox) < MAX_OUTBOX:
            self.outbox.append(messages.build(kind, *values))
