"""Compile the gate, its loader, the watch over the engine and the herald to the supervisor.

All come from `firmware/gate` and are the same bytes wherever this repository lies: the compilers are told to forget
their directory, and debugging data is removed except the type information the kernel wants. The compilers are the
developer machine's (Debian 12); the programs are linked statically, so they run on any kernel and C library.
"""

import platform
import tempfile
from pathlib import Path

from omamori_firmware.cache import Cache
from omamori_firmware.compiler import Compiler
from omamori_firmware.files import sha256_tree
from omamori_firmware.recipe import SourceTree, source_tree
from omamori_firmware.run import require, run

STAGE = "gate"
OBJECT = "gate.bpf.o"
LOADER = "omamori-wire"
WATCH = "omamori-watch"
HERALD = "omamori-herald"
_TIMEOUT_S = 120.0
_HINT = "run tools/setup.sh"


def build_gate(out: Path, *, source: Path | None = None, compiler: Compiler | None = None) -> None:
    """Write the gate's object file and the programs beside it into a directory.

    Args:
        out: An existing directory; it receives `gate.bpf.o` and the programs `omamori-wire`, `omamori-watch` and
            `omamori-herald`.
        source: Directory of the sources, if not this repository's.
        compiler: Makes the programs; by default for this machine. The object file runs on any processor.

    Raises:
        SetupError: A compiler or a library is not installed.
        ToolError: The sources do not compile.
    """
    source = source or source_tree().gate
    with tempfile.TemporaryDirectory(prefix="omamori-gate.") as work:
        unstripped = Path(work) / OBJECT
        _compile_object(source, unstripped)
        run([require("llvm-strip"), "--strip-debug", "-o", out / OBJECT, unstripped], timeout_s=_TIMEOUT_S)
    compiler = compiler or Compiler()
    compiler.compile(source, "omamori_wire.c", out / LOADER, ("bpf", "elf", *compiler.arch.elf_libraries))
    compiler.compile(source, "omamori_watch.c", out / WATCH)
    compiler.compile(source, "omamori_herald.c", out / HERALD)


def obtain_gate(tree: SourceTree, cache: Cache) -> Path:
    """Return a directory with gate and programs, compiled if they are not in the cache."""
    return cache.obtain(STAGE, gate_inputs(tree), build_gate)


def gate_inputs(tree: SourceTree) -> dict[str, str]:
    """Return what the programs depend on, besides a compiler that is not this machine's own."""
    here = Path(__file__).parent
    return {"source": sha256_tree([tree.gate]), "code": sha256_tree([here, here.parent / "compiler.py"])}


def _compile_object(source: Path, target: Path) -> None:
    line: list[str | Path] = [require("clang"), "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf"]
    # v3 has 32-bit arithmetic and atomics with results; every kernel since 5.12 knows it.
    line += ["-mcpu=v3", f"-ffile-prefix-map={source}=.", "-fdebug-compilation-dir=."]
    line += [f"-I/usr/include/{platform.machine()}-linux-gnu", "-c", "gate.bpf.c", "-o", target]
    run(line, timeout_s=_TIMEOUT_S, cwd=source, hint=_HINT)
