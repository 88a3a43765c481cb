import unittest

from supervisor.frames import MAX_BODY, MAX_FRAME, Decoder, encode

from vectors import FRAMES


def noise(seed, length):
    out = bytearray()
    for _ in range(length):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        out.append(seed >> 16 & 255)
    return bytes(out)


class TestFrames(unittest.TestCase):
    def test_vectors(self):
        for sequence, body, frame in FRAMES:
            made = encode(sequence, bytes.fromhex(body))
            self.assertTrue(len(made) <= MAX_FRAME)
            self.assertEqual(made.count(b"\0"), 2)
            if frame:
                self.assertEqual(made, bytes.fromhex(frame))
            self.assertEqual(Decoder().feed(made), [bytes.fromhex(body)])

    def test_any_cut_into_pieces_gives_the_same_frames(self):
        stream = encode(1, b"one") + encode(2, b"\0\0") + encode(3, bytes(range(200)))
        for size in (1, 2, 3, 7, 50):
            decoder, found = Decoder(), []
            for at in range(0, len(stream), size):
                found += decoder.feed(stream[at : at + size])
            self.assertEqual(found, [b"one", b"\0\0", bytes(range(200))])
            self.assertEqual((decoder.good, decoder.damaged, decoder.lost), (3, 0, 0))

    def test_each_single_flipped_bit_costs_that_frame_only(self):
        frame = encode(7, b"\xa3\x00\x02\x01\x02\x02\x18\x96")
        for bit in range(8, 8 * len(frame) - 8):
            damaged = bytearray(frame)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            self.assertEqual(Decoder().feed(bytes(damaged) + encode(8, b"next")), [b"next"])

    def test_a_frame_too_long_is_dropped_and_the_next_one_is_found(self):
        decoder = Decoder()
        self.assertEqual(decoder.feed(b"\x01" * 5000), [])
        self.assertTrue(len(decoder._piece) <= 247)
        self.assertEqual(decoder.feed(b"\0" + encode(1, b"good")), [b"good"])
        self.assertEqual(decoder.damaged, 1)

    def test_a_body_must_fit(self):
        encode(0, b"x" * MAX_BODY)
        for body in (b"", b"x" * (MAX_BODY + 1)):
            with self.assertRaises(ValueError):
                encode(0, body)

    def test_repeats_and_gaps_are_counted(self):
        decoder = Decoder()
        self.assertEqual(decoder.feed(encode(65534, b"a") * 2 + encode(1, b"b")), [b"a", b"b"])
        self.assertEqual((decoder.repeated, decoder.lost), (1, 2))
        self.assertEqual(decoder.feed(encode(30000, b"c")), [b"c"])
        self.assertEqual(decoder.lost, 2)

    def test_noise_is_never_a_frame(self):
        decoder = Decoder()
        for seed in range(60):
            self.assertEqual(decoder.feed(noise(seed, 300)), [])
        self.assertEqual(decoder.feed(b"\0" + encode(5, b"still here")), [b"still here"])


if __name__ == "__main__":
    unittest.main()
