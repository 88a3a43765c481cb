"""The box's end of the serial link to the supervisor, the microcontroller that holds the wire.

`frames` and `messages` say what may be on the line, `line` opens it, `link` speaks, `abilities` offers the supervisor
as the board abilities the rest of the software knows. docs/supervisor.md describes the link.
"""
