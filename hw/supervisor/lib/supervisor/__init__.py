"""The supervisor's firmware: holds the wire, watches the box and tells its owner the truth.

Everything here runs under MicroPython 1.25; the modules without hardware (all but `pins` and `app`) also run under
CPython, where the host's tests play with them.
"""

VERSION = "1.0.0"
