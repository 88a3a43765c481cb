"""As much of `unittest` as the tests use, for the microcontroller: micropython-lib's own is not to be had as source.

The same test files run under micropython-lib's `unittest` in MicroPython's WebAssembly build, and under CPython's.
"""


class _Raises:
    def __init__(self, kind):
        self._kind = kind

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            raise AssertionError(self._kind.__name__ + " was not raised")
        return issubclass(kind, self._kind)


class TestCase:
    def assertEqual(self, left, right):
        if not left == right:
            raise AssertionError("{!r} != {!r}".format(left, right)[:120])

    def assertTrue(self, value, message=""):
        if not value:
            raise AssertionError(str(message)[:120])

    def assertRaises(self, kind):
        return _Raises(kind)


def main():
    raise NotImplementedError
