"""What is frozen into the firmware (MicroPython's manifest language)."""

package("supervisor", base_path="$(SUPERVISOR)/lib")
module("cbor2.py", base_path="$(SUPERVISOR)/lib")
package("senml", base_path="$(PYPI)")
module("main.py", base_path="$(SUPERVISOR)/app")
