import unittest

from supervisor.supply import Supply

from supervisor import words as w


class TestSupply(unittest.TestCase):
    def test_an_outage_by_its_length(self):
        for outage, kind in (
            (0, w.POWER_DIP),
            (299, w.POWER_DIP),
            (300, w.POWER_SHORT),
            (29999, w.POWER_SHORT),
            (30000, w.POWER_LONG),
            (1 << 33, w.POWER_LONG),
        ):
            supply = Supply()
            supply.lose(1000)
            self.assertEqual(supply.present, False)
            self.assertEqual(supply.gain(1000 + outage), kind)
            self.assertEqual((supply.present, supply.serial), (True, 2))
            self.assertEqual(supply.outage_ms, min(outage, 0xFFFFFFFF))

    def test_a_rail_is_low_once_until_it_was_good_again(self):
        supply = Supply()
        told = [supply.rail(millivolts) for millivolts in (3300, 3000, 2999, 2500, None, 2500, 3000, 2999)]
        self.assertEqual(told, [False, False, True, False, False, False, False, True])

    def test_without_supply_no_rail_is_too_low(self):
        supply = Supply()
        supply.lose(0)
        self.assertEqual((supply.rail(0), supply.kind), (False, w.POWER_COLD))

    def test_the_number_of_events_fits_into_a_message(self):
        supply = Supply()
        supply.serial = 65535
        supply.lose(0)
        supply.gain(1000)
        self.assertEqual(supply.serial, 0)


if __name__ == "__main__":
    unittest.main()
