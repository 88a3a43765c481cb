"""The lab: an office, a box and an internet on one machine."""
