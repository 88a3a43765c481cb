import unittest

from supervisor import cbor
from vectors import BAD, GOOD


class TestCbor(unittest.TestCase):
    def test_every_value_has_one_spelling(self):
        for value, spelling in GOOD:
            self.assertEqual(cbor.dumps(value), bytes.fromhex(spelling))
            self.assertEqual(cbor.loads(bytes.fromhex(spelling)), value)

    def test_everything_else_is_refused(self):
        for spelling, why in BAD:
            try:
                value = cbor.loads(bytes.fromhex(spelling))
            except cbor.CborError:
                continue
            self.assertTrue(False, "{}: {} accepted as {}".format(why, spelling, value))

    def test_a_cut_message_is_refused_at_every_place(self):
        whole = cbor.dumps({0: 16, 1: [1, b"abc", "text", None], 2: {-1: 70000}})
        for length in range(len(whole)):
            with self.assertRaises(cbor.CborError):
                cbor.loads(whole[:length])

    def test_values_that_the_link_does_not_speak_are_refused(self):
        for value in (1.5, "日", "x" * 65, 1 << 32, -(1 << 32) - 1, {"a": 1}, {24: 1}, {True: 1}, [[[[[]]]]], [0] * 25):
            with self.assertRaises(cbor.CborError):
                cbor.dumps(value)

    def test_one_byte_more_than_allowed(self):
        self.assertEqual(len(cbor.dumps(b"x" * 238)), 240)
        with self.assertRaises(cbor.CborError):
            cbor.dumps(b"x" * 239)
        with self.assertRaises(cbor.CborError):
            cbor.loads(b"\x58\xef" + b"x" * 239)


if __name__ == "__main__":
    unittest.main()
