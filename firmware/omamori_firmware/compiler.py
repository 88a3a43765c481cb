"""The C compiler for a board's processor; programs are linked statically, so they run on any kernel and C library.

For the developer machine's own processor it is that machine's compiler. For another one it comes from a tree, and the
libraries from a second tree with that processor's files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omamori_firmware.architecture import X86_64, Architecture
from omamori_firmware.errors import SetupError
from omamori_firmware.run import require, run
from omamori_firmware.tools import ToolsTree

_FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s")
_TIMEOUT_S = 120.0
_HINT = "run tools/setup.sh"


@dataclass(frozen=True)
class Compiler:
    """A compiler.

    Attributes:
        arch: The processor it compiles for.
        cross: Tree it comes from; None for this machine's own.
        target: Tree with the processor's headers and libraries; None for this machine's own.
    """

    arch: Architecture = X86_64
    cross: ToolsTree | None = None
    target: ToolsTree | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """What its results depend on besides the sources, for their keys; this machine's own is not asked."""
        trees = {"cross": self.cross, "target": self.target}
        return {name: tree.key for name, tree in trees.items() if tree is not None}

    def compile(
        self, source: Path, name: str, target: Path, libraries: Sequence[str] = (), defines: Sequence[str] = ()
    ) -> None:
        """Make a program.

        Args:
            source: Directory of the sources; the result does not depend on where it lies.
            name: Source file in it.
            target: File to write.
            libraries: What it is linked with, in this order.
            defines: Macros, as `NAME=value`.

        Raises:
            SetupError: The compiler or a library is not installed.
            ToolError: The source does not compile.
        """
        line: list[str | Path] = [*_FLAGS, *(f"-D{define}" for define in defines)]
        line += [f"-ffile-prefix-map={source}=.", "-Wl,--build-id=none", "-o", target, name]
        line += [f"-l{library}" for library in libraries]
        if self.cross is None:
            for library in libraries:
                if not any(Path("/usr/lib").glob(f"*/lib{library}.a")):
                    raise SetupError(f"the library lib{library} is not installed", hint=_HINT)
            command: Sequence[str | Path] = [require(self.arch.compiler), *line]
        else:
            assert self.target is not None  # the trees come together
            root = self.target.top
            places = [f"-isystem{root}/usr/include", f"-isystem{root}/usr/include/{self.arch.triplet}"]
            places += [f"-B{root}/usr/lib/{self.arch.triplet}/", f"-L{root}/usr/lib/{self.arch.triplet}"]
            command = self.cross.command(
                [self.arch.compiler, f"--sysroot={root}", *places, *line], binds=[source, target.parent, root]
            )
        run(command, timeout_s=_TIMEOUT_S, cwd=source, hint=_HINT)
