"""Load for the benches: small C programs, compiled once per machine, and how to call them.

`programs` compiles, `probe` measures what arrives when, `generators` makes load, `web_server` serves it.
"""
