import unittest

from supervisor.lamps import AMBER, CODE_ROUND_MS, GREEN, RED, code_lamp, code_ms, lamp


def blinks(code):
    """Count the blinks of a round, digit by digit, as a person would: a long dark ends a digit."""
    digits, count, dark, lit = [], 0, 0, False
    for at in range(0, code_ms(code), 50):
        now = code_lamp(code, at) == RED
        if now and not lit:
            count += 1
        dark = 0 if now else dark + 50
        if dark == 1000 and count:
            digits.append(count % 10)
            count = 0
        lit = now
    if count:
        digits.append(count % 10)
    return digits


class TestLamps(unittest.TestCase):
    def test_the_six_states_look_different(self):
        looks = set()
        for state in range(1, 7):
            looks.add(tuple(lamp(state, 0, False, 1111, at) for at in range(0, 2000, 100)))
        self.assertEqual(len(looks), 6)
        self.assertEqual({lamp(2, 0, False, 0, at) for at in range(0, 5000, 10)}, {GREEN})
        self.assertEqual({lamp(3, 0, False, 0, at) for at in range(0, 5000, 10)}, {AMBER})

    def test_the_code_can_be_counted(self):
        for code, digits in ((1111, [1, 1, 1, 1]), (6231, [6, 2, 3, 1]), (9049, [9, 0, 4, 9]), (0, [0, 0, 0, 0])):
            self.assertEqual(blinks(code), digits)
            self.assertTrue(code_ms(code) <= CODE_ROUND_MS)

    def test_who_asks_sees_the_code_in_every_state(self):
        for state in range(1, 7):
            self.assertEqual(lamp(state, 0, True, 1111, 3000), RED)
            self.assertEqual(lamp(state, 0, True, 1111, 2999), 0)

    def test_a_box_that_was_given_up_shows_its_code_by_itself(self):
        self.assertEqual({lamp(6, 0, False, 1111, at) for at in range(0, 10000, 100)}, {RED})
        self.assertEqual(lamp(6, 0, False, 1111, 10100), 0)
        self.assertEqual(lamp(6, 0, False, 1111, 13100), RED)

    def test_the_result_of_an_update(self):
        self.assertEqual({lamp(2, 1, False, 0, at) for at in range(0, 1000, 50)}, {GREEN, 0})
        self.assertEqual({lamp(2, 2, False, 0, at) for at in range(0, 1000, 50)}, {GREEN, AMBER})


if __name__ == "__main__":
    unittest.main()
