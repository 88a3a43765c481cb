import sys
import unittest

from supervisor.frames import Decoder
from supervisor.keeper import Keeper

from supervisor import messages as m
from supervisor import words as k

# The microcontroller itself takes its time; there the soak is a sample.
CHANGES = 200 if sys.platform == "omamori-supervisor" else 10000


class Bench:
    """A supervisor whose time is driven by the test; the relay's actions are written down."""

    def __init__(self, **begin):
        self.now = 0
        self.coded = True  # messages go through the codec
        self.keeper = Keeper()
        self.actions = []
        self.resets = 0
        self.sent = []
        self._reset = False
        start = {"through": False, "kept": None, "how": k.COLD}
        start.update(begin)
        self.relay = start["through"]
        self.keeper.start(0, **start)
        self.act()

    def act(self):
        if self.keeper.through != self.relay:
            self.relay = self.keeper.through
            self.actions.append((self.now, self.relay))
        if self.keeper.reset and not self._reset:
            self.resets += 1
        self._reset = self.keeper.reset
        while self.keeper.outbox:
            self.sent.append(m.parse(self.keeper.outbox.pop(0)))

    def wait(self, ms, step=None):
        begin, end = self.now, self.now + ms
        while self.now < end:
            # Fine steps at first, where the relay may move; coarse ones later save time.
            self.now = min(self.now + (step or (10 if self.now - begin < 1000 else 100)), end)
            self.keeper.tick(self.now)
            self.act()

    def say(self, kind, *values):
        if self.coded:
            kind, values = m.parse(m.build(kind, *values))
        self.keeper.message(self.now, kind, values)
        self.act()

    def forward(self, ms=200, every=50, lease=150, step=25):
        for _ in range(ms // every):
            self.say(m.REPORT, m.BOX_FORWARDING, lease)
            self.wait(every, step)

    def events(self):
        found = [values[0] for kind, values in self.sent if kind == m.EVENT]
        self.sent = []
        return found

    def look(self):
        return self.keeper.state, self.relay


class TestWire(unittest.TestCase):
    def test_at_power_on_the_office_is_connected_past_the_box(self):
        bench = Bench()
        bench.wait(1000)
        self.assertEqual(bench.look(), (k.STARTING, False))
        self.assertEqual(bench.actions, [])
        self.assertEqual(bench.sent[0][0], m.WELCOME)

    def test_three_reports_in_a_row_lead_the_wire_through_the_box(self):
        bench = Bench()
        for _ in range(2):
            bench.say(m.REPORT, m.BOX_FORWARDING, 150)
            bench.wait(50)
            self.assertEqual(bench.relay, False)
        bench.say(m.REPORT, m.BOX_FORWARDING, 150)
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_reports_with_a_gap_do_not_count_together(self):
        bench = Bench()
        for _ in range(20):
            bench.say(m.REPORT, m.BOX_FORWARDING, 100)
            bench.say(m.REPORT, m.BOX_FORWARDING, 100)
            bench.wait(110)
        self.assertEqual(bench.actions, [])

    def test_silence_closes_when_the_lease_ends(self):
        bench = Bench()
        bench.forward()
        said = bench.now - 50
        bench.wait(1000, step=1)
        self.assertEqual(bench.actions[1:], [(said + 150, False)])
        self.assertEqual((bench.keeper.state, bench.keeper.cause), (k.RECOVERING, k.CAUSE_SILENCE))

    def test_every_word_of_the_box_that_it_stops_closes_at_once(self):
        for word in (
            (m.REPORT, m.BOX_STOPPING, 150),
            (m.REPORT, m.BOX_STARTING, 150),
            (m.ANNOUNCE, 1, m.REBOOT, 60),
            (m.ANNOUNCE, 1, m.UPDATE, 60),
            (m.WIRE, 1, 60),
            (m.RESET, 1),
            (m.HELLO, 1, 4711, "1.0.0"),
        ):
            bench = Bench()
            bench.say(m.HELLO, 1, 1, "1.0.0")
            bench.forward()
            then = bench.now
            bench.say(*word)
            self.assertEqual(bench.actions[1:], [(then, False)])

    def test_after_an_announcement_old_reports_do_not_open(self):
        bench = Bench()
        bench.forward()
        bench.say(m.ANNOUNCE, 1, m.UPDATE, 60)
        bench.forward(1000)
        self.assertEqual(bench.look(), (k.UPDATING, False))
        bench.say(m.HELLO, 1, 2, "1.0.1")
        bench.forward()
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_an_announced_silence_ends(self):
        bench = Bench()
        bench.forward()
        bench.say(m.ANNOUNCE, 1, m.REBOOT, 60)
        bench.wait(59000)
        self.assertEqual(bench.look(), (k.UPDATING, False))
        bench.wait(2000)
        self.assertEqual(bench.look(), (k.RECOVERING, False))
        self.assertEqual(bench.resets, 0)
        bench.wait(60000)
        self.assertEqual(bench.resets, 1)

    def test_the_relay_does_not_chatter_on_a_bad_line(self):
        bench = Bench()
        for _ in range(60):
            bench.forward(200)
            bench.wait(800)
        self.assertTrue(len(bench.actions) <= 14, bench.actions)
        self.assertEqual(bench.resets, 0)

    def test_a_good_minute_forgets_the_chatter(self):
        bench = Bench()
        for _ in range(10):
            bench.forward(400)
            bench.wait(400)
        bench.forward(70000, every=500, lease=1500, step=500)
        bench.wait(2000)
        bench.forward(1500)
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_a_box_that_comes_back_after_an_announced_end_does_not_wait(self):
        bench = Bench()
        bench.forward()
        bench.say(m.REPORT, m.BOX_STOPPING, 150)
        bench.wait(1000)
        bench.say(m.REPORT, m.BOX_STARTING, 150)
        then = bench.now
        bench.forward()
        self.assertEqual(bench.actions[-1], (then + 100, True))


class TestWatch(unittest.TestCase):
    def test_a_silent_box_is_warned_then_reset_then_left_alone(self):
        bench = Bench()
        bench.say(m.SETTINGS, 1, 30, 12, 3)
        bench.forward()
        bench.events()
        bench.wait(12500)
        self.assertEqual(bench.events(), [m.EVENT_WIRE, m.EVENT_WARNED, m.EVENT_RESET])
        self.assertEqual(bench.look(), (k.STARTING, False))
        bench.wait(60500)
        self.assertEqual(bench.resets, 3)
        bench.wait(600000, step=100)
        self.assertEqual((bench.resets, bench.keeper.state), (3, k.GIVEN_UP))
        bench.forward(2000)
        self.assertEqual(bench.look(), (k.GIVEN_UP, False))
        self.assertEqual(bench.keeper.code(), 6241)

    def test_the_reset_line_is_pulled_for_a_moment(self):
        bench = Bench()
        bench.say(m.RESET, 1)
        self.assertEqual(bench.keeper.reset, True)
        bench.wait(190)
        self.assertEqual(bench.keeper.reset, True)
        bench.wait(20)
        self.assertEqual(bench.keeper.reset, False)

    def test_a_request_that_is_repeated_is_done_once(self):
        bench = Bench()
        for _ in range(5):
            bench.say(m.RESET, 7)
            bench.wait(1000)
        self.assertEqual(bench.resets, 1)
        self.assertEqual([values for kind, values in bench.sent if kind == m.ANSWER], [[7, m.DONE]] * 5)

    def test_a_box_that_asks_too_often_for_its_reset(self):
        bench = Bench()
        for number in range(5):
            bench.say(m.RESET, number)
            bench.wait(1000)
        self.assertEqual(bench.resets, 3)
        self.assertEqual(bench.sent[-1], (m.ANSWER, [4, m.TOO_OFTEN]))

    def test_a_box_that_recovers_in_time_is_not_reset(self):
        bench = Bench()
        bench.forward()
        bench.wait(20000)
        bench.forward(3000)
        self.assertEqual((bench.resets, bench.look()), (0, (k.PROTECTING, True)))

    def test_resets_are_forgotten_after_ten_good_minutes(self):
        bench = Bench()
        bench.say(m.SETTINGS, 1, 30, 12, 3)
        bench.wait(31000)
        bench.forward(610000, every=500, lease=1500, step=500)
        self.assertEqual((bench.resets, bench.keeper.resets), (1, 0))

    def test_a_box_that_reports_too_late_to_open_is_not_reset(self):
        bench = Bench()
        for _ in range(200):
            bench.say(m.REPORT, m.BOX_FORWARDING, 50)
            bench.wait(1000)
        self.assertEqual((bench.resets, bench.actions), (0, []))


class TestOwner(unittest.TestCase):
    def test_a_long_press_lets_everything_pass_for_ten_minutes(self):
        bench = Bench()
        bench.forward()
        bench.keeper.press(bench.now, long=True)
        bench.act()
        self.assertEqual(bench.look(), (k.PASSING, False))
        bench.forward(599000, every=500, lease=1500, step=500)
        self.assertEqual(bench.look(), (k.PASSING, False))
        bench.forward(2000)
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_a_second_long_press_ends_it(self):
        bench = Bench()
        bench.forward()
        bench.keeper.press(bench.now, long=True)
        bench.forward()
        bench.keeper.press(bench.now, long=True)
        bench.forward()
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_the_box_cannot_take_back_what_the_owner_pressed(self):
        bench = Bench()
        bench.forward()
        bench.keeper.press(bench.now, long=True)
        for number, seconds in enumerate((0, 60)):
            bench.say(m.WIRE, number, seconds)
            self.assertEqual(bench.sent[-1], (m.ANSWER, [number, m.OWNER_DECIDED]))
        bench.say(m.HELLO, 1, 99, "1")
        bench.say(m.ANNOUNCE, 9, m.UPDATE, 1)
        bench.forward(3000)
        self.assertEqual(bench.look(), (k.PASSING, False))

    def test_the_box_can_ask_to_be_passed_by(self):
        bench = Bench()
        bench.forward()
        bench.say(m.WIRE, 1, 60)
        bench.forward(59000)
        self.assertEqual((bench.look(), bench.keeper.cause), ((k.PASSING, False), k.CAUSE_COMMAND))
        bench.say(m.WIRE, 2, 0)
        bench.forward()
        self.assertEqual(bench.look(), (k.PROTECTING, True))

    def test_a_box_that_was_passed_by_is_not_reset_for_silence(self):
        bench = Bench()
        bench.keeper.press(bench.now, long=True)
        bench.wait(590000, step=100)
        self.assertEqual(bench.resets, 0)

    def test_a_long_press_gives_a_lost_box_another_chance(self):
        bench = Bench()
        bench.keeper.state, bench.keeper.resets = k.GIVEN_UP, 3
        bench.keeper.press(bench.now, long=True)
        bench.forward()
        self.assertEqual((bench.look(), bench.keeper.resets), ((k.PROTECTING, True), 0))

    def test_a_short_press_asks_for_the_code(self):
        bench = Bench()
        bench.forward()
        bench.say(m.CODE, 1, 4711)
        bench.keeper.press(bench.now, long=False)
        self.assertEqual((bench.keeper.shown(bench.now), bench.keeper.code()), ((k.PROTECTING, 0, True), 4711))
        self.assertEqual(bench.relay, True)

    def test_the_result_of_an_update_is_shown_for_a_while(self):
        bench = Bench()
        bench.say(m.SHOW, 1, 2, 10)
        self.assertEqual(bench.keeper.shown(bench.now)[1], 2)
        bench.wait(10000)
        self.assertEqual(bench.keeper.shown(bench.now)[1], 0)


class TestPower(unittest.TestCase):
    def pull(self, bench, ms):
        bench.keeper.power(bench.now, present=False)
        bench.act()
        bench.wait(ms)
        bench.keeper.power(bench.now, present=True)
        bench.act()

    def test_a_pulled_plug_closes_at_once_and_its_length_is_told(self):
        for ms, kind in ((250, k.POWER_DIP), (5000, k.POWER_SHORT), (31000, k.POWER_LONG)):
            bench = Bench()
            bench.forward()
            then = bench.now
            self.pull(bench, ms)
            self.assertEqual(bench.actions[1:], [(then, False)])
            bench.say(m.HELLO, 1, 1, "1")
            _, values = bench.sent[-1]
            self.assertEqual(values[4:], [2, kind, ms])

    def test_reports_without_supply_open_nothing(self):
        bench = Bench()
        bench.keeper.power(bench.now, present=False)
        bench.forward(2000)
        self.assertEqual(bench.look(), (k.STARTING, False))

    def test_a_pull_gives_a_lost_box_another_chance_and_a_dip_does_not(self):
        for ms, state in ((100, k.GIVEN_UP), (1000, k.STARTING)):
            bench = Bench()
            bench.keeper.state = k.GIVEN_UP
            self.pull(bench, ms)
            self.assertEqual(bench.keeper.state, state)

    def test_nothing_is_reset_while_the_plug_is_out(self):
        bench = Bench()
        bench.keeper.power(bench.now, present=False)
        bench.wait(3600000, step=1000)
        self.assertEqual(bench.resets, 0)

    def test_a_brown_out_is_told_once(self):
        bench = Bench()
        bench.forward()
        bench.events()
        for millivolts in (3300, 2900, 2800, None, 2900, 3300, 2700):
            bench.keeper.rail(millivolts)
        bench.act()
        self.assertEqual(bench.events(), [m.EVENT_BROWN_OUT] * 2)
        self.assertEqual(bench.relay, True)

    def test_the_first_word_after_power_on_is_cold(self):
        bench = Bench()
        self.assertEqual(bench.sent[0][1][2:], [k.COLD, 0, 1, k.POWER_COLD, 0])


class TestRestart(unittest.TestCase):
    def restarted(self, before, **changes):
        begin = {"through": before.relay, "kept": before.keeper.kept(), "how": k.WARM}
        begin.update(changes)
        return Bench(**begin)

    def test_the_relay_stays_when_the_box_goes_on_reporting(self):
        before = Bench()
        before.forward()
        after = self.restarted(before)
        after.wait(300)
        after.forward(1000)
        self.assertEqual((after.actions, after.look()), ([], (k.PROTECTING, True)))
        self.assertEqual((after.keeper.restarts, after.keeper.moves), (1, 1))

    def test_the_relay_falls_when_nobody_reports(self):
        before = Bench()
        before.forward()
        after = self.restarted(before)
        after.wait(1000)
        self.assertEqual((after.actions, after.keeper.cause), ([(500, False)], k.CAUSE_SELF))

    def test_the_box_has_as_long_as_it_had_before(self):
        before = Bench()
        before.forward(6000, every=600, lease=1800)
        after = self.restarted(before)
        after.wait(1700)
        self.assertEqual(after.actions, [])
        after.wait(200)
        self.assertEqual(after.actions, [(1800, False)])

    def test_a_relay_found_on_is_kept_even_without_memory(self):
        after = Bench(through=True, how=k.WARM)
        after.forward(1000)
        self.assertEqual(after.actions, [])

    def test_the_owner_and_a_lost_box_are_remembered(self):
        for state in (k.PASSING, k.GIVEN_UP):
            before = Bench()
            before.forward()
            if state == k.PASSING:
                before.keeper.press(before.now, long=True)
                before.act()
            else:
                before.keeper.state = state
                before.keeper.through = before.relay = False
            after = self.restarted(before)
            after.forward(2000)
            self.assertEqual(after.look(), (state, False))

    def test_a_relay_that_should_not_be_on_falls_at_the_start(self):
        before = Bench()
        before.keeper.press(0, long=True)
        after = self.restarted(before, through=True)
        self.assertEqual(after.actions, [(0, False)])

    def test_memory_that_is_none_is_not_believed(self):
        before = Bench().keeper.kept()
        for kept in (b"", b"x" * 7, b"\xff" * len(before), b"\0" * len(before), before + b"\0"):
            after = Bench(kept=kept, how=k.WARM)
            self.assertEqual(after.keeper.state, k.STARTING)
            after.forward()
            self.assertEqual(after.relay, True)


class TestSoak(unittest.TestCase):
    def test_ten_thousand_changes_without_a_missed_or_doubled_action(self):
        bench, seed, changes, decoder = Bench(), 1, 0, Decoder()
        bench.say(m.SETTINGS, 65535, 30, 5, 9)
        before, bench.coded = bench.keeper.state, False
        for number in range(10 * CHANGES):
            if changes >= CHANGES:
                break
            seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
            choice = seed >> 16 & 15
            if choice < 7 and before == k.PROTECTING:
                choice += 7  # it forwards already; something else happens
            if choice < 7:
                bench.forward(150, step=50)
            elif choice == 7:
                bench.wait(200, step=100)
            elif choice == 8:
                bench.say(m.ANNOUNCE, number & 0xFFFF, m.REBOOT, 1)
            elif choice == 9:
                bench.say(m.HELLO, 1, number, "1")
            elif choice == 10:
                bench.keeper.press(bench.now, long=True)
            elif choice == 11:
                bench.keeper.power(bench.now, present=seed >> 20 & 3 != 0)
            elif choice == 12:
                bench.say(m.WIRE, number & 0xFFFF, seed >> 20 & 1)
            elif choice == 13:
                bench.say(m.REPORT, m.BOX_STARTING, 100)
            elif choice == 14:
                bench.wait(30000, step=5000)
            else:
                bench.keeper.power(bench.now, present=True)
            bench.act()
            bench.sent = []
            if bench.keeper.state != before:
                before = bench.keeper.state
                changes += 1
            # Through means protecting, and nothing else does.
            self.assertEqual(bench.relay, before == k.PROTECTING)
        self.assertEqual(changes, CHANGES)
        # Every wish was an action, each the opposite of the one before.
        self.assertEqual(len(bench.actions), bench.keeper.moves)
        for at in range(1, len(bench.actions)):
            self.assertTrue(bench.actions[at][1] != bench.actions[at - 1][1])
        self.assertTrue(bench.keeper.moves > CHANGES // 10, bench.keeper.moves)
        bench.keeper.status(bench.now, decoder, 0, 0)


if __name__ == "__main__":
    unittest.main()
