"""Measurements as a SenML pack (RFC 8428) in CBOR, made with micropython-lib's `senml`.

Integers only: the microcontroller has no double precision, and whole millivolts and degrees are what there is to say.
Of the encoder only names, units and values are used; its 0.1.1 loses base sums and times of zero.
"""

from senml import SenmlPack, SenmlRecord

NAME = "supervisor"


def pack(*, celsius, millivolts, through, moves, restarts, uptime_s, past_s):
    """Return the bytes of a pack; a measurement that is None is left out."""
    made = SenmlPack(NAME)
    if celsius is not None:
        made.add(SenmlRecord("temp", unit="Cel", value=celsius))
    if millivolts is not None:
        made.add(SenmlRecord("rail", unit="mV", value=millivolts))
    made.add(SenmlRecord("through", value=bool(through)))
    made.add(SenmlRecord("moves", unit="count", value=moves))
    made.add(SenmlRecord("restarts", unit="count", value=restarts))
    made.add(SenmlRecord("uptime", unit="s", value=uptime_s))
    made.add(SenmlRecord("past", unit="s", value=past_s))
    return made.to_cbor()
