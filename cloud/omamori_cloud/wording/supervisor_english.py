"""The English words about a box's supervisor and its power."""

from __future__ import annotations

from omamori_protocol.vocabulary import PowerKind

from .supervisor import PowerWords, SupervisorWords

SUPERVISOR = SupervisorWords(
    title="Supervisor",
    lead="A small part that watches box and power, and joins the network past the box while it cannot work.",
    none="This box has no supervisor, or has not told of one yet",
    silent="The supervisor does not answer. Traffic is not interrupted. Call us if it goes on.",
    temperature="Temperature",
    celsius="{number} °C",
    hot="hot: check that air gets to the box",
    rail="Voltage inside",
    volts="{number} V",
    low="low: check the power adapter",
    wire="The wire leads",
    through="through the box",
    past="past the box",
    past_meaning="nothing is inspected",
    past_time="Time past the box",
    since_start="since the supervisor's start",
    moves="Moves of the wire",
    times="{number}",
    resets="Restarts by the supervisor",
    power="What last happened to the power",
    version="Supervisor's version",
    length="{name} ({span})",
    seconds="{number} s",
    powers={
        PowerKind.NONE: PowerWords(
            name="The power stayed",
            meaning="The power was there all the time; the box had stopped and was restarted. Call us if it goes on.",
        ),
        PowerKind.COLD: PowerWords(
            name="Power after a long time without",
            meaning="It was away for so long that the supervisor's own reserve was used up.",
        ),
        PowerKind.DIP: PowerWords(name="Dip of the power", meaning="It was away for a moment, less than 0.3 s."),
        PowerKind.SHORT_PULL: PowerWords(
            name="Plug out for a short time",
            meaning="The power was away for less than 30 s. An update that is ready begins with that.",
        ),
        PowerKind.LONG_PULL: PowerWords(name="Long power cut", meaning="The power was away for 30 s or more."),
        PowerKind.BROWN_OUT: PowerWords(
            name="Too little voltage",
            meaning="The voltage fell with the plug in. If it goes on the power adapter must be replaced: call us.",
        ),
    },
)
