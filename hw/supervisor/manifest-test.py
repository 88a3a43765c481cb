"""The same firmware with its own tests, which it runs and reports before it starts to work."""

package("supervisor", base_path="$(SUPERVISOR)/lib")
module("cbor2.py", base_path="$(SUPERVISOR)/lib")
package("senml", base_path="$(PYPI)")
freeze("$(SUPERVISOR)/tests", "vectors.py")
freeze("$(SUPERVISOR)/tests/on_target")
for name in ("cbor", "frames", "messages", "keeper", "inputs", "lamps", "supply", "telemetry"):
    freeze("$(SUPERVISOR)/tests", "test_" + name + ".py")
