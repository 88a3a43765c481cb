"""What the image is made of, how it is built, and how to start it in QEMU.

Nothing here runs on the device: the image contains `omamori_protocol`, `omamori_hw` and `omamori_agent` only.
"""
