import unittest

from supervisor.inputs import Button, Clock


def play(*spans):
    """Sample every 5 ms; `spans` are pairs of milliseconds and level. Return (time, press) pairs."""
    button, now, heard = Button(), 0, []
    for length, pressed in spans:
        for _ in range(length // 5):
            press = button.sample(now, pressed)
            if press:
                heard.append((now, press))
            now += 5
    return heard


class TestButton(unittest.TestCase):
    def test_a_short_press_counts_when_it_ends(self):
        self.assertEqual(play((100, False), (300, True), (100, False)), [(430, "short")])

    def test_a_long_press_counts_while_it_is_held_and_once(self):
        self.assertEqual(play((100, False), (9000, True), (500, False)), [(3100, "long")])

    def test_a_bouncing_contact_is_one_press(self):
        bounces = ((5, True), (5, False)) * 5
        self.assertEqual(
            [press for _, press in play((50, False), *bounces, (400, True), *bounces, (90, False))], ["short"]
        )

    def test_a_spike_is_nothing(self):
        self.assertEqual(play((50, False), (25, True), (500, False)), [])


class TestClock(unittest.TestCase):
    def test_it_grows_over_the_end_of_the_counter(self):
        ticks = [(1 << 30) - 10]
        clock = Clock(lambda: ticks[0])
        self.assertEqual(clock.now(), 0)
        for _ in range(100):
            ticks[0] = (ticks[0] + (1 << 26)) % (1 << 30)
            clock.now()
        self.assertEqual(clock.now(), 100 << 26)

    def test_a_counter_that_steps_back_is_not_followed(self):
        ticks = [1000]
        clock = Clock(lambda: ticks[0])
        ticks[0] = 1500
        self.assertEqual(clock.now(), 500)
        ticks[0] = 1400
        self.assertEqual(clock.now(), 500)
        ticks[0] = 1600
        self.assertEqual(clock.now(), 600)


if __name__ == "__main__":
    unittest.main()
