"""Runs every test on the microcontroller, says so in the words of Unity, then works like the firmware proper.

Two spare inputs of the expander do what no message can: one makes the program hang, one makes it fail.
"""

import gc
import sys
import unittest

import _board

NAMES = ("cbor", "frames", "messages", "inputs", "lamps", "supply", "telemetry", "keeper")
HANG, FAIL = 0x40, 0x80


def run_all():
    tests = failures = 0
    for name in NAMES:
        module = __import__("test_" + name)
        for case in sorted(dir(module)):
            kind = getattr(module, case)
            if not isinstance(kind, type) or not issubclass(kind, unittest.TestCase):
                continue
            for test in sorted(dir(kind)):
                if not test.startswith("test_"):
                    continue
                gc.collect()
                tests += 1
                try:
                    getattr(kind(), test)()
                    result = "PASS"
                except Exception as error:
                    failures += 1
                    sys.print_exception(error)
                    result = "FAIL: " + repr(error)[:150].replace(":", ";")
                print("test_{}.py:1:{}_{}:{}".format(name, case, test, result))
        del sys.modules["test_" + name]
    print("-----------------------")
    print("{} Tests {} Failures 0 Ignored".format(tests, failures))
    print("FAIL" if failures else "OK")


if not _board.was_restarted():
    run_all()

from supervisor.pins import EXPANDER

from supervisor.app import App

app = App()
released = False
while True:
    app.step()
    _board.link_wait(2)
    raw = _board.i2c_read(EXPANDER, 0x01, 1)
    if raw is None:
        continue
    if raw[0] & HANG:
        released = True
    elif released:  # once, however long it is held
        while True:
            pass
    if not raw[0] & FAIL:
        raise RuntimeError("asked to fail")
