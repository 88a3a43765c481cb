"""What the lamp shows: one pattern for each state, the result of an update, and the diagnosis code.

The lamp has three colours. A person on the phone can tell the six states apart: green, amber or red, steady or
blinking once a second. Pure functions of time.
"""

GREEN = 1
AMBER = 2
RED = 4

RESULT_OK = 1
RESULT_FAILED = 2

# state: colour, steady
_STATES = {
    1: (GREEN, False),
    2: (GREEN, True),
    3: (AMBER, True),
    4: (AMBER, False),
    5: (RED, False),
    6: (RED, True),
}
_BLINK_MS = 500
_DIGIT_BLINK_MS = 300
_DIGIT_PAUSE_MS = 1500
_CODE_PAUSE_MS = 3000
_STEADY_MS = 10000
# No code takes longer: four digits of ten blinks each.
CODE_ROUND_MS = _CODE_PAUSE_MS + 4 * (10 * 2 * _DIGIT_BLINK_MS + _DIGIT_PAUSE_MS)


def lamp(state, result, asked, code, elapsed):
    """Return the colours that are lit.

    Args:
        state: One of the six states.
        result: Result of an update to show, or 0.
        asked: Somebody pressed the button to see the code.
        code: The four digits.
        elapsed: Milliseconds since what is shown last changed.
    """
    if asked:
        return code_lamp(code, elapsed % code_ms(code))
    if result == RESULT_OK:
        return GREEN if elapsed % 200 < 100 else 0
    if result == RESULT_FAILED:
        return GREEN if elapsed % 1000 < 500 else AMBER
    if state == 6:
        # Nobody will come by to press the button: the code follows by itself.
        turn = elapsed % (_STEADY_MS + code_ms(code))
        return RED if turn < _STEADY_MS else code_lamp(code, turn - _STEADY_MS)
    colour, steady = _STATES[state]
    return colour if steady or elapsed % (2 * _BLINK_MS) < _BLINK_MS else 0


def code_ms(code):
    """Return how long one round of a code takes (milliseconds)."""
    total = _CODE_PAUSE_MS
    for digit in digits(code):
        total += (digit or 10) * 2 * _DIGIT_BLINK_MS + _DIGIT_PAUSE_MS
    return total


def code_lamp(code, at):
    """Return the colours at a moment of a code's round: dark, then each digit as so many red blinks, 0 as ten."""
    at -= _CODE_PAUSE_MS
    if at < 0:
        return 0
    for digit in digits(code):
        length = (digit or 10) * 2 * _DIGIT_BLINK_MS
        if at < length:
            return RED if at % (2 * _DIGIT_BLINK_MS) < _DIGIT_BLINK_MS else 0
        at -= length + _DIGIT_PAUSE_MS
        if at < 0:
            return 0
    return 0


def digits(code):
    """Return the four digits of a code."""
    return code // 1000 % 10, code // 100 % 10, code // 10 % 10, code % 10
