import unittest

from supervisor.messages import TELEMETRY, build

from supervisor import cbor, telemetry


class TestTelemetry(unittest.TestCase):
    def test_a_pack_is_what_rfc_8428_says(self):
        made = telemetry.pack(celsius=-3, millivolts=3300, through=True, moves=5, restarts=0, uptime_s=0, past_s=7)
        self.assertEqual(
            cbor.loads(made),
            [
                {-2: "supervisor", 0: "temp", 1: "Cel", 2: -3},
                {0: "rail", 1: "mV", 2: 3300},
                {0: "through", 4: True},
                {0: "moves", 1: "count", 2: 5},
                {0: "restarts", 1: "count", 2: 0},
                {0: "uptime", 1: "s", 2: 0},
                {0: "past", 1: "s", 2: 7},
            ],
        )

    def test_the_largest_pack_fits_into_a_message(self):
        made = telemetry.pack(
            celsius=-100,
            millivolts=65535,
            through=False,
            moves=4294967295,
            restarts=65535,
            uptime_s=4294967295,
            past_s=4294967295,
        )
        build(TELEMETRY, made)

    def test_a_sensor_that_is_gone_is_left_out(self):
        made = telemetry.pack(celsius=None, millivolts=None, through=False, moves=0, restarts=0, uptime_s=1, past_s=1)
        self.assertEqual([record[0] for record in cbor.loads(made)], ["through", "moves", "restarts", "uptime", "past"])


if __name__ == "__main__":
    unittest.main()
