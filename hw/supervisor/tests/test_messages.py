import unittest

from supervisor.cbor import CborError, dumps

from supervisor import messages


class TestMessages(unittest.TestCase):
    def test_every_kind_at_both_ends_of_its_ranges(self):
        for kind, ranges in messages.FIELDS.items():
            for end in (0, 1):
                values = ["text" if limits is None else limits[end] for limits in ranges]
                self.assertEqual(messages.parse(messages.build(kind, *values)), (kind, values))

    def test_one_beyond_each_range(self):
        for kind, ranges in messages.FIELDS.items():
            good = ["text" if limits is None else limits[0] for limits in ranges]
            for number, limits in enumerate(ranges):
                wrong = [1] if limits is None else [limits[0] - 1, limits[1] + 1, True, None, "1"]
                for value in wrong:
                    values = list(good)
                    values[number] = value
                    with self.assertRaises(CborError):
                        messages.build(kind, *values)
                    message = dict(enumerate([kind] + values))  # noqa: RUF005 - MicroPython has no star here
                    try:
                        body = dumps(message)
                    except CborError:
                        continue
                    with self.assertRaises(CborError):
                        messages.parse(body)

    def test_what_is_no_message(self):
        for value in ([], {}, 1, {1: 1}, {0: 99}, {0: True, 1: 1}, {0: 7}, {0: 7, 1: 1, 2: 1}, {0: 7, 2: 1}, {0: None}):
            with self.assertRaises(CborError):
                messages.parse(dumps(value))


if __name__ == "__main__":
    unittest.main()
