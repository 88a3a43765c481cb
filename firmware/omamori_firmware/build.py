"""From this repository to an artifact directory, stage by stage.

Each stage is kept in the cache by the hash of what went in, so a second build only does what changed. The signing
key is used in one stage and nowhere else; it is never copied.

Stages: tools tree, packages, kernel, wheels, gate, root file system, initrd, kernel image, variables, disk.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from omamori_firmware import disk, initrd, installer, kernel, lockfile, pythonpath, rootfs, rootimage, secureboot, uki
from omamori_firmware.architecture import Architecture, architecture
from omamori_firmware.bootstrap import Request, bootstrap
from omamori_firmware.cache import Cache
from omamori_firmware.compiler import Compiler
from omamori_firmware.dataplane import build_gate
from omamori_firmware.dataplane.build import gate_inputs
from omamori_firmware.emulation import emulation
from omamori_firmware.errors import LockDriftError, SetupError, ToolError
from omamori_firmware.files import copy_sparse, sha256_file, sha256_tree
from omamori_firmware.lockfile import Package
from omamori_firmware.progress import Reporter, Stage
from omamori_firmware.recipe import PackageList, SourceTree
from omamori_firmware.rootfs import KEY_CHANGES, TRUSTED, Parts, Release
from omamori_firmware.rootimage import VerityRoot
from omamori_firmware.run import run
from omamori_firmware.tools import ToolsTree, obtain_tools
from omamori_hw.board import Board, load_board
from omamori_protocol.durable import write_atomic

STAGES = 11
FLAVOURS = ("release", "dev")
MANIFEST_FORMAT = 1
# Packages carry the times of the archive; what is made from them carries the build time. This one only has to be
# always the same.
_PACKAGE_EPOCH = 1767225600
_ARTIFACTS = (
    "root.erofs",
    "root.verity",
    "roothash",
    "omamori.efi",
    "boot.vfat",
    "disk.raw",
    "vars.fd",
    "packages.json",
)


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        board: Name of the board.
        flavour: `release` or `dev`.
        trust: Directory with the public keys.
        signing_key: Private key of Secure Boot's db.
        out: Artifact directory; replaced file by file.
        version: Product version; None for this repository's.
        allow_drift: Accept packages that are not the locked ones.
    """

    board: str
    flavour: str
    trust: Path
    signing_key: Path
    out: Path
    version: str | None = None
    allow_drift: bool = False


@dataclass
class _Lock:
    """How the packages compare with the locks."""

    states: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trees:
    """The trees that an image is made with.

    Attributes:
        arch: The board's processor.
        tools: Programs of the developer's machine.
        target: Files for the board's processor; the tools tree where both are the same.
        cross: Compiler and emulators for another processor; None where both are the same.
    """

    arch: Architecture
    tools: ToolsTree
    target: ToolsTree
    cross: ToolsTree | None

    @property
    def compiler(self) -> Compiler:
        """What compiles for the board."""
        return Compiler() if self.cross is None else Compiler(self.arch, self.cross, self.target)

    @property
    def machine(self) -> ToolsTree:
        """Where the emulated machine and its boot firmware are."""
        return self.cross or self.tools


def stage_count(board: Board) -> int:
    """Return how many stages the build of a board's image has; another processor's trees are two more."""
    return STAGES + (0 if architecture(board.platform.arch).cross_tree is None else 2)


class Builder:
    """Builds images of one repository."""

    def __init__(self, tree: SourceTree, cache: Cache, reporter: Reporter) -> None:
        """Remember where things are; nothing is done yet."""
        self._tree = tree
        self._cache = cache
        self._reporter = reporter
        self._lock = _Lock()

    def build(self, request: BuildRequest) -> dict[str, Any]:
        """Build an image and return its manifest.

        Raises:
            SetupError: Something the build needs is missing.
            LockDriftError: The packages are not the locked ones.
            ToolError: A tool failed.
        """
        board = load_board(self._tree.boards / request.board)
        version = installer.check_version(request.version or metadata.version("omamori"))
        epoch, data_version = installer.security_epoch(self._tree), installer.data_version(self._tree)
        release = Release(version, request.flavour, board, self._build_time(), epoch, data_version)
        arch = architecture(board.platform.arch)
        tools = self._tools(request)
        trees = self._trees(request, arch, tools)
        with emulation(arch, trees.cross, self._cache):
            packages, kernel_package = self._packages(request, board.platform.kernel_package, arch)
            kernel_files = self._kernel(kernel_package, release, tools)
            wheels = self._wheels(arch.name)
            gate, slots = self._gate(trees.compiler), self._slots(trees.compiler)
            parts = Parts(self._tree, packages, kernel_files, wheels, gate, slots, request.trust, tools)
            root, verity = self._root(parts, release, tools)
        first = self._initrd(release, kernel_files, slots, trees)
        image = self._uki(request, release, verity, root, kernel_files, first, trees)
        variables = self._variables(request, trees)
        with self._stage("disk") as stage:
            stage.note("writing")
            request.out.mkdir(parents=True, exist_ok=True)
            self._publish(request.out, release, root, image, variables)
            packages_lock = (packages.parent / "packages.lock").read_text()
            self._describe_packages(request.out, packages_lock, root)
        manifest = self._manifest(request, release, kernel_files.release, verity)
        write_atomic(request.out / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
        return manifest

    def renew_lock(self, name: str) -> list[str]:
        """Take the newest packages of a list of this machine's programs and write them to its lock file.

        Args:
            name: The package list: `tools`, `supervisor` or a processor's cross tree.

        Returns:
            What changed, one line each.
        """
        return self._renew(name, lambda made: Request(made, None, None, _PACKAGE_EPOCH))

    def renew_board_locks(self, board: Board) -> dict[str, list[str]]:
        """Write the lock files of everything that a board's image is made of, besides the tools tree.

        Args:
            board: The board.

        Returns:
            Lock file's name to what changed, one line each.
        """
        arch = architecture(board.platform.arch)
        changes: dict[str, list[str]] = {}
        if arch.cross_tree is not None:
            changes[arch.cross_tree] = self.renew_lock(arch.cross_tree)
            changes[arch.target_tree] = self._renew(
                arch.target_tree, lambda made: Request(made, None, None, _PACKAGE_EPOCH, arch.debian, unpacked=True)
            )
        kernel_package = board.platform.kernel_package
        wanted = self._tree.package_list("root")
        with self._emulation(arch), self._cache.workspace("lock") as work:
            request = Request(wanted, None, kernel_package, _PACKAGE_EPOCH, _foreign(arch))
            result = work / "result"
            result.mkdir()
            with self._stage(f"lock {arch.root_lock}") as stage:
                fresh = self._fetch_packages(request, result, stage.note)
            changes[arch.root_lock] = self._write_lock(arch.root_lock, fresh)
            # The same packages from the lock would give the same bytes: what is made now need not be made again.
            inputs = self._package_inputs(wanted, fresh, kernel_package, arch)
            if self._cache.find("packages", inputs) is None:
                self._cache.obtain("packages", inputs, lambda place: _copy_into(result, place))
        return changes

    @contextmanager
    def _emulation(self, arch: Architecture) -> Iterator[None]:
        cross = None if arch.cross_tree is None else self._tree_of(arch.cross_tree)
        with emulation(arch, cross, self._cache):
            yield

    def _tree_of(self, name: str, unpacked_for: str | None = None, *, allow_drift: bool = True) -> ToolsTree:
        with self._stage(f"{name} tree") as stage:
            tree, stage.cached = obtain_tools(
                self._tree,
                self._cache,
                source_date_epoch=_PACKAGE_EPOCH,
                note=stage.note,
                name=name,
                unpacked_for=unpacked_for,
            )
            self._check_lock(name, tree.packages, allow=allow_drift)
        return tree

    def _renew(self, name: str, request: Callable[[PackageList], Request]) -> list[str]:
        with self._stage(f"lock {name}") as stage, self._cache.workspace("lock") as work:
            fresh = bootstrap(request(self._tree.package_list(name)), work / "tree.tar", self._cache, stage.note)
            return self._write_lock(name, fresh)

    def _write_lock(self, name: str, fresh: tuple[Package, ...]) -> list[str]:
        path = self._tree.lock(name)
        before = lockfile.load_lock(path) or ()
        write_atomic(path, lockfile.render_lock(fresh).encode())
        return lockfile.compare(before, fresh)

    @contextmanager
    def _stage(self, name: str) -> Iterator[Stage]:
        with self._reporter.stage(name) as stage:
            yield stage

    def _tools(self, request: BuildRequest) -> ToolsTree:
        with self._stage("tools tree") as stage:
            tools, stage.cached = obtain_tools(
                self._tree, self._cache, source_date_epoch=_PACKAGE_EPOCH, note=stage.note
            )
            self._check_lock("tools", tools.packages, allow=request.allow_drift)
        return tools

    def _trees(self, request: BuildRequest, arch: Architecture, tools: ToolsTree) -> Trees:
        if arch.cross_tree is None:
            return Trees(arch, tools, tools, None)
        cross = self._tree_of(arch.cross_tree, allow_drift=request.allow_drift)
        target = self._tree_of(arch.target_tree, arch.debian, allow_drift=request.allow_drift)
        return Trees(arch, tools, target, cross)

    def _packages(self, request: BuildRequest, kernel_package: str, arch: Architecture) -> tuple[Path, Path]:
        wanted = self._tree.package_list("root")
        lock = lockfile.load_lock(self._tree.lock(arch.root_lock))
        with self._stage("packages") as stage:

            def build(directory: Path) -> None:
                made = Request(wanted, lock, kernel_package, _PACKAGE_EPOCH, _foreign(arch))
                self._fetch_packages(made, directory, stage.note)

            inputs = self._package_inputs(wanted, lock, kernel_package, arch)
            result = self._obtain(stage, "packages", inputs, build)
            present = lockfile.parse_lock((result / "packages.lock").read_text(), where="packages.lock")
            self._check_lock(arch.root_lock, present, allow=request.allow_drift)
        return result / "root.tar", result / "kernel.deb"

    def _fetch_packages(self, request: Request, directory: Path, note: Callable[[str], None]) -> tuple[Package, ...]:
        present = bootstrap(request, directory / "root.tar", self._cache, note)
        (directory / "packages.lock").write_text(lockfile.render_lock(present))
        image = next((item for item in present if _is_kernel(item)), None)
        if image is None:
            raise SetupError(f"the mirror's {request.kernel} names no kernel")
        shutil.copyfile(self._cache.debs / image.file_name, directory / "kernel.deb")
        return present

    def _package_inputs(
        self, wanted: PackageList, lock: tuple[Package, ...] | None, kernel_package: str, arch: Architecture
    ) -> dict[str, str]:
        foreign = _foreign(arch)
        return {
            "packages": repr(wanted),
            "lock": lockfile.render_lock(lock) if lock else "",
            "kernel": kernel_package,
            "code": self._code("bootstrap"),
        } | ({"arch": foreign} if foreign else {})

    def _kernel(self, package: Path, release: Release, tools: ToolsTree) -> kernel.Kernel:
        inputs = {
            "package": sha256_file(package),
            "modules": repr(release.board.modules),
            "tools": tools.key,
            "code": self._code("kernel"),
        }
        with self._stage("kernel") as stage:

            def build(directory: Path) -> None:
                with self._cache.workspace("kernel") as work:
                    kernel.unpack_kernel(package, release.board, tools, directory, work)

            return kernel.open_kernel(self._obtain(stage, "kernel", inputs, build))

    def _wheels(self, arch: str) -> Path:
        inputs = {"lock": sha256_file(self._tree.device_lock), "arch": arch, "code": self._code("pythonpath")}
        with self._stage("wheels") as stage:
            return self._obtain(
                stage,
                "wheels",
                inputs,
                lambda directory: pythonpath.fetch_wheels(self._tree.device_lock, directory, arch=arch),
            )

    def _gate(self, compiler: Compiler) -> Path:
        inputs = gate_inputs(self._tree) | compiler.inputs
        with self._stage("gate") as stage:
            return self._obtain(stage, "gate", inputs, lambda directory: build_gate(directory, compiler=compiler))

    def _slots(self, compiler: Compiler) -> Path:
        source = self._tree.slots
        inputs = {"source": sha256_tree([source]), "code": self._code("installer", "compiler")} | compiler.inputs
        with self._stage("slots") as stage:
            return self._obtain(
                stage,
                "slots",
                inputs,
                lambda directory: installer.build_chooser(directory, source=source, compiler=compiler),
            )

    def _root(self, parts: Parts, release: Release, tools: ToolsTree) -> tuple[Path, VerityRoot]:
        tree = self._tree
        inputs = {
            "packages": parts.packages.parent.name,
            "kernel": parts.kernel.directory.name,
            "wheels": parts.wheels.name,
            "gate": parts.gate.name,
            "slots": parts.slots.name,
            "trust": sha256_tree([parts.trust / name for name in (*TRUSTED, *KEY_CHANGES)]),
            "recipe": sha256_tree([tree.recipe / "overlay", tree.recipe / "strip.toml"]),
            "parts": self._sources(),
            "release": repr(release),
            "tools": tools.key,
            "code": self._code("rootfs", "strip", "pythonpath", "rootimage", "installer"),
        }
        with self._stage("root file system") as stage:

            def build(directory: Path) -> None:
                with self._cache.workspace("root") as work:
                    root = work / "root"
                    root.mkdir(mode=0o755)
                    stage.note("putting together")
                    removed = rootfs.assemble(root, parts, release, self._reporter.warn)
                    shutil.copyfile(root / "usr/lib/os-release", directory / "os-release")
                    stage.note("writing the file system")
                    rootimage.make_erofs(root, directory / "root.erofs", tools, epoch=release.build_time)
                if self._sources() != inputs["parts"]:
                    raise SetupError("the sources changed while the image was built", hint="build again")
                stage.note("hashing")
                verity = rootimage.make_verity(directory / "root.erofs", directory / "root.verity", tools)
                (directory / "verity.json").write_text(json.dumps(verity.__dict__))
                (directory / "removed.json").write_text(json.dumps(sorted(removed)))

            result = self._obtain(stage, "root", inputs, build)
        return result, VerityRoot(**json.loads((result / "verity.json").read_text()))

    def _initrd(self, release: Release, kernel_files: kernel.Kernel, chooser: Path, trees: Trees) -> Path:
        script = self._tree.recipe / "initrd" / "init"
        slots = installer.partition_file()
        inputs = {
            "script": sha256_file(script),
            "slots": slots,
            "chooser": chooser.name,
            "load": repr(release.board.modules.initrd_load),
            "console": release.board.platform.shell_device,
            "kernel": kernel_files.directory.name,
            "tools": trees.tools.key,
            "programs": trees.target.key,
            "code": self._code("initrd", "elf"),
        }
        with self._stage("initrd") as stage:
            load = release.board.modules.initrd_load
            result = self._obtain(
                stage,
                "initrd",
                inputs,
                lambda directory: initrd.build_initrd(
                    script,
                    slots,
                    chooser / installer.CHOOSER,
                    load,
                    kernel_files,
                    initrd.Programs(trees.target, trees.arch),
                    trees.tools,
                    directory / "initrd.zst",
                    shell_console=release.board.platform.shell_device,
                ),
            )
        return result / "initrd.zst"

    def _uki(
        self,
        request: BuildRequest,
        release: Release,
        verity: VerityRoot,
        root: Path,
        kernel_files: kernel.Kernel,
        first: Path,
        trees: Trees,
    ) -> Path:
        tools = trees.tools
        key = uki.SigningKey(request.signing_key, request.trust / "db.crt")
        arguments = uki.command_line(release.board, verity, version=release.version, flavour=release.flavour)
        for path in (key.key, key.certificate):
            if not path.is_file():
                raise SetupError(f"{path} is not there", hint="make keys with: omamori-ota keys init DIR")
        inputs = {
            "arguments": arguments,
            "kernel": kernel_files.directory.name,
            "initrd": first.parent.name,
            "os-release": sha256_file(root / "os-release"),
            "certificate": sha256_file(key.certificate),
            "epoch": str(release.build_time),
            "slot": repr(release.board.disk),
            "tools": tools.key,
            "stub": trees.target.key,
            "code": self._code("uki", "disk"),
        }
        with self._stage("kernel image") as stage:

            def build(directory: Path) -> None:
                with self._cache.workspace("uki") as work:
                    uki.build_uki(
                        work / "unsigned.efi",
                        kernel=kernel_files.image,
                        release=kernel_files.release,
                        initrd=first,
                        os_release=root / "os-release",
                        arguments=arguments,
                        stub=trees.target.path(trees.arch.stub),
                        tools=tools,
                    )
                    uki.sign(work / "unsigned.efi", directory / "omamori.efi", key, tools, epoch=release.build_time)
                sizes, epoch = release.board.disk, release.build_time
                signed, arch = directory / "omamori.efi", trees.arch
                disk.make_slot(directory / "boot.vfat", sizes, signed, tools, label="boot", epoch=epoch, arch=arch)
                disk.make_slot(directory / "slot_b.vfat", sizes, None, tools, label="slot_b", epoch=epoch)

            return self._obtain(stage, "uki", inputs, build)

    def _variables(self, request: BuildRequest, trees: Trees) -> Path:
        certificates = [request.trust / name for name in ("PK.crt", "KEK.crt", "db.crt")]
        inputs = {
            "trust": sha256_tree(certificates),
            "tools": trees.tools.key,
            "firmware": f"{trees.machine.key} {trees.arch.model.empty_variables}",
            "code": self._code("secureboot"),
        }
        empty = trees.machine.path(trees.arch.model.empty_variables)
        with self._stage("variables") as stage:
            return self._obtain(
                stage,
                "variables",
                inputs,
                lambda directory: secureboot.enrol_variables(directory / "vars.fd", request.trust, empty, trees.tools),
            )

    def _publish(self, out: Path, release: Release, root: Path, image: Path, variables: Path) -> None:
        verity = VerityRoot(**json.loads((root / "verity.json").read_text()))
        (out / "roothash").write_text(verity.roothash + "\n")
        sources = {
            "root.erofs": root / "root.erofs",
            "root.verity": root / "root.verity",
            "omamori.efi": image / "omamori.efi",
            "boot.vfat": image / "boot.vfat",
            "vars.fd": variables / "vars.fd",
        }
        for name, source in sources.items():
            (out / name).unlink(missing_ok=True)
            copy_sparse(source, out / name)
        contents = {
            "slot_a": image / "boot.vfat",
            "slot_b": image / "slot_b.vfat",
            "root_a": root / "root.erofs",
            "verity_a": root / "root.verity",
        }
        disk.write_disk(out / "disk.raw", release.board.disk, contents, architecture(release.board.platform.arch))

    def _describe_packages(self, out: Path, packages_lock: str, root: Path) -> None:
        removed = set(json.loads((root / "removed.json").read_text()))
        rows = [
            {"name": item.name, "version": item.version, "arch": item.arch, "sha256": item.sha256}
            for item in lockfile.parse_lock(packages_lock, where="packages.lock")
            if item.name not in removed
        ]
        write_atomic(out / "packages.json", (json.dumps(rows, indent=1) + "\n").encode())

    def _manifest(
        self, request: BuildRequest, release: Release, kernel_release: str, verity: VerityRoot
    ) -> dict[str, Any]:
        files = {
            name: {"size": (request.out / name).stat().st_size, "sha256": sha256_file(request.out / name)}
            for name in _ARTIFACTS
        }
        return {
            "format": MANIFEST_FORMAT,
            "version": release.version,
            "flavour": release.flavour,
            "board": release.board.name,
            "model": release.board.model,
            "build_time": release.build_time,
            "security_epoch": release.security_epoch,
            "data_version": release.data_version,
            "kernel": kernel_release,
            "roothash": verity.roothash,
            "salt": verity.salt,
            "blocks": verity.blocks,
            "lock": self._lock.states,
            "drift": self._lock.differences,
            "files": files,
            "timings": [item.__dict__ for item in self._reporter.times],
        }

    def _check_lock(self, name: str, present: tuple[Package, ...], *, allow: bool) -> None:
        path = self._tree.lock(name)
        lock = lockfile.load_lock(path)
        if lock is None:
            self._reporter.warn(f"{path.name} does not exist: packages are whatever the mirror has")
            self._lock.states[name] = "unlocked"
            return
        differences = lockfile.compare(lock, present)
        self._lock.states[name] = "drift" if differences else "locked"
        self._lock.differences += differences
        if differences and not allow:
            raise LockDriftError(
                path.name,
                differences,
                hint="the mirror has moved on: renew with `omamori-image lock`, or build with --allow-drift",
            )
        if differences:
            self._reporter.warn(f"{len(differences)} packages differ from {path.name}: {differences[0]}, ...")

    def _obtain(self, stage: Stage, name: str, inputs: Mapping[str, str], build: Any) -> Path:
        stage.cached = self._cache.find(name, inputs) is not None
        return self._cache.obtain(name, inputs, build)

    def _sources(self) -> str:
        tree = self._tree
        return sha256_tree([*tree.device_packages, tree.units, tree.wire, tree.engine, tree.wifi])

    def _code(self, *modules: str) -> str:
        here = Path(__file__).parent
        return sha256_tree(sorted(path for module in modules for path in here.glob(f"{module}*.py")))

    def _build_time(self) -> int:
        given = os.environ.get("SOURCE_DATE_EPOCH")
        if given:
            return int(given)
        paths = ("firmware", "hw", "agent", "protocol", "requirements/device.lock")
        try:
            text = run(["git", "-C", self._tree.top, "log", "-1", "--format=%ct", "--", *paths], timeout_s=30)
            return int(text.decode().strip())
        except (ToolError, ValueError) as err:
            raise SetupError(
                "the time of the sources is unknown", hint="build from a git checkout, or set SOURCE_DATE_EPOCH"
            ) from err


def _copy_into(source: Path, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)


def _foreign(arch: Architecture) -> str | None:
    """Return Debian's name of a processor that is not the developer's machine's own."""
    return arch.debian if arch.cross_tree is not None else None


def _is_kernel(package: Package) -> bool:
    return package.name.startswith("linux-image-") and package.name.removeprefix("linux-image-")[0].isdigit()
