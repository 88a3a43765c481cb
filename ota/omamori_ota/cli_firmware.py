"""The commands of firmware releases: `bundle`, `delta`, `firmware …`, `bundle-ca …`, `secureboot …`, `keys …`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from omamori_protocol.firmware_release import FirmwareRelease, Importance

from .clock import parse_duration, system_clock
from .errors import RejectedError
from .files import PUBLIC_FILE, write_atomic
from .firmware import bundle_keys, publication, secureboot_keys
from .firmware.bundle_keys import TRUST
from .firmware.ceremony import render_protocol
from .firmware.notes import note_name
from .firmware.payloads import LEVEL
from .firmware.programs import HostPrograms, Programs, TreePrograms
from .firmware.publication import FirmwareRepository, Staged
from .firmware.release_directory import ReleaseDirectory, ReleaseRequest, make_release
from .firmware.signatures import TokenSigner, file_signer, load_public_key
from .firmware.signing import BundleKey, BundleSigner, read_envelope
from .firmware.stick import StickWriter
from .keys import KeyDirectory
from .roles import FIRMWARE, ROLES, Lifetimes

_Commands = Any  # argparse keeps the type of add_subparsers to itself
_STEP_S = 0.2


class _Bar:
    """A line that fills up, on a terminal only."""

    def __init__(self, what: str, *, quiet: bool) -> None:
        self._what = what
        self._is_shown = not quiet and sys.stderr.isatty()
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._is_shown and (time.monotonic() >= self._next or done == total):
            self._next = time.monotonic() + _STEP_S
            share = done / total
            line = f"\r{self._what} [{'#' * int(share * 30):<30}] {share:4.0%} {done >> 20} of {total >> 20} MiB"
            print(line, end="\n" if done == total else "", file=sys.stderr, flush=True)


def _json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _programs(options: argparse.Namespace) -> Programs:
    return HostPrograms() if options.tools == "host" else TreePrograms()


def _bundle_signer(options: argparse.Namespace, programs: Programs) -> BundleSigner:
    if options.pkcs11 is None:
        return BundleSigner(BundleKey.of_directory(options.keys), programs)
    certificate = options.certificate or options.keys / "bundle/bundle.crt"
    key = BundleKey.of_token(options.pkcs11, certificate, options.pkcs11_module)
    return BundleSigner(key, programs, tuple(options.bind))


def _bundle(options: argparse.Namespace) -> None:
    programs = _programs(options)
    request = ReleaseRequest(
        importance=Importance(options.importance),
        min_from=options.min_from,
        notes={"ja": options.notes_ja, "en": options.notes_en},
        wheels=options.wheels,
        trust=options.keys / TRUST,
        revision=options.revision,
        now=system_clock(),
        level=options.level,
    )
    bar = _Bar("full payload", quiet=options.json)
    made = make_release(options.image, options.out, request, _bundle_signer(options, programs), programs, bar)
    _release(made.release, as_json=options.json)


def _delta(options: argparse.Namespace) -> None:
    old, new = ReleaseDirectory(options.base), ReleaseDirectory(options.to)
    payload = new.add_delta(old, _Bar(f"delta from {old.release.version}", quiet=options.json))
    share = payload.length / new.release.full.length
    if options.json:
        _json({"from": payload.base, "to": new.release.version, "length": payload.length, "share": round(share, 5)})
    else:
        print(f"delta {payload.base} to {new.release.version}: {payload.length} bytes, {share:.2%} of the full payload")


def _release(release: FirmwareRelease, *, as_json: bool) -> None:
    if as_json:
        _json(release.to_custom())
        return
    print(f"release {release.version} for {release.board}: {release.importance}, epoch {release.security_epoch}")
    print(f"  bundle {release.bundle.length} bytes, sha256 {release.bundle.sha256}")
    if release.min_from:
        print(f"  from {release.min_from} or later")
    for item in release.payloads:
        print(f"  {item.kind} {f'from {item.base} ' if item.base else ''}{item.length} bytes")


def _repository(options: argparse.Namespace) -> FirmwareRepository:
    return FirmwareRepository(options.repo, KeyDirectory(options.keys), system_clock, Lifetimes.parse(options.expires))


def _staged(staged: Staged, *, as_json: bool) -> None:
    if as_json:
        body = dataclasses.asdict(staged)
        body["releases"] = [item.to_custom() for item in staged.releases]
        _json(body)
        return
    print(
        f"firmware version {staged.version}, until {staged.expires}: {len(staged.signed)} of {staged.threshold} signed"
    )
    for item in staged.releases:
        print(f"  {item.board} {item.version} epoch {item.security_epoch} {item.importance} {item.bundle.sha256}")


def _stage(options: argparse.Namespace) -> None:
    staged = _repository(options).stage(ReleaseDirectory(options.release), options.out)
    _staged(staged, as_json=options.json)


def _sign(options: argparse.Namespace) -> None:
    for item in publication.staged_releases(options.staged):
        _release(item, as_json=False)
    if options.pkcs11 is None:
        signer: Any = file_signer(options.key)
    else:
        if options.pkcs11_module is None:
            raise RejectedError("a token needs its library", hint="--pkcs11-module FILE")
        key = load_public_key(options.key)
        signer = TokenSigner(options.pkcs11, key, options.pkcs11_module, _programs(options), tuple(options.bind))
    publication.add_signature(options.staged, signer)
    print(f"signed with {signer.public_key.keyid}")


def _make_visible(options: argparse.Namespace) -> None:
    done = _repository(options).release(ReleaseDirectory(options.release), options.staged)
    _versions(done.versions, as_json=options.json)


def _publish(options: argparse.Namespace) -> None:
    repository, keys = _repository(options), KeyDirectory(options.keys)
    for place in options.release:
        release = ReleaseDirectory(place)
        staged = place / ".staged.json"
        repository.stage(release, staged)
        try:
            for name in ROLES[FIRMWARE].keys:
                publication.add_signature(staged, file_signer(keys.path / "tuf" / f"{name}.pem"))
            done = repository.release(release, staged)
        finally:
            staged.unlink(missing_ok=True)
        _versions(done.versions, as_json=options.json)


def _versions(versions: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        _json({"versions": versions})
    else:
        print("signed " + " ".join(f"{role}={version}" for role, version in versions.items()))


def _add_owner(options: argparse.Namespace) -> None:
    _versions(_repository(options).add_owner(options.public_key).versions, as_json=options.json)


def _list(options: argparse.Namespace) -> None:
    found = _repository(options).releases()
    if options.json:
        _json([item.to_custom() for item in found])
        return
    for item in found:
        _release(item, as_json=False)


def _show(options: argparse.Namespace) -> None:
    directory = ReleaseDirectory(options.release)
    directory.check()
    certificate = bundle_keys.load_certificate(options.certificate) if options.certificate else None
    statement = read_envelope(directory.path / "provenance.json", certificate) if certificate else None
    if options.json:
        _json({"release": directory.release.to_custom(), "provenance": statement})
        return
    _release(directory.release, as_json=False)
    for language, _ in directory.release.notes:
        print(f"\n[{language}]\n{(directory.path / note_name(language)).read_text(encoding='utf-8')}", end="")


def _stick(options: argparse.Namespace) -> None:
    writer = StickWriter(options.repo, KeyDirectory(options.keys), system_clock, Lifetimes.parse(options.expires))
    valid = parse_duration(options.valid)
    release = writer.write_stick(options.out, options.board, options.version, valid=valid, starts=tuple(options.base))
    if options.json:
        _json({"out": str(options.out), "version": release.version, "valid": options.valid})
    else:
        print(f"{release.version} for {release.board} on {options.out}, for {options.valid}; label the volume OMAMORI")


def _bundle_ca(options: argparse.Namespace) -> None:
    KeyDirectory(options.dir)
    match options.step:
        case "renew":
            bundle_keys.renew(options.dir, system_clock)
            print("bundles are signed with a new key under the same authority")
        case "prepare":
            bundle_keys.prepare(options.dir, system_clock)
            print("images carry two authorities from now on: build and roll out a release, then `adopt`")
        case "adopt":
            bundle_keys.adopt(options.dir, system_clock)
            print("bundles are signed under the new authority; boxes without it cannot be updated any more")
        case _:
            bundle_keys.retire(options.dir)
            print("images carry only the new authority; the old one's key is gone")


def _secureboot(options: argparse.Namespace) -> None:
    KeyDirectory(options.dir)
    match options.step:
        case "prepare":
            secureboot_keys.prepare(options.dir, system_clock)
            print("images bring a second certificate from now on: build and roll out a release, then `adopt`")
        case "adopt":
            secureboot_keys.adopt(options.dir)
            print("kernel images are signed with the new key; boxes without its certificate do not start them")
        case _:
            secureboot_keys.retire(options.dir, system_clock)
            print(
                "images bring the revocation of the old certificate from now on; older releases do not start after it"
            )


def _ceremony(options: argparse.Namespace) -> None:
    keys = KeyDirectory(options.dir)
    text = render_protocol(keys, options.person, options.occasion, system_clock(), metadata.version("omamori"))
    if options.out is not None:
        write_atomic(options.out, text.encode(), mode=PUBLIC_FILE)
    print(text, end="")


def _add_token(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pkcs11", metavar="URI", help="sign with a token's key; the PIN comes from pin-source=FILE")
    parser.add_argument("--pkcs11-module", metavar="FILE", type=Path, help="the token's library")
    parser.add_argument("--bind", metavar="DIR", type=Path, action="append", default=[], help="what the library needs")
    parser.add_argument(
        "--tools", choices=("tree", "host"), default="tree", help="where programs come from (default: %(default)s)"
    )


def _add_repository(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", metavar="KEYS", type=Path, help="key directory")
    parser.add_argument("repo", metavar="REPO", type=Path, help="repository directory")
    parser.add_argument(
        "--expires", metavar="ROLE=DURATION", action="append", default=[], help="lifetime instead of the role's own"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_firmware_commands(commands: _Commands, keys_commands: _Commands) -> None:
    """Add the commands to the parser; `keys_commands` is the group `keys`."""
    _add_making(commands)
    _add_publishing(commands)
    command = commands.add_parser("bundle-ca", help="replace the key, or in three steps the authority, of bundles")
    command.add_argument("step", choices=("renew", "prepare", "adopt", "retire"))
    command.add_argument("dir", metavar="KEYS", type=Path, help="key directory")
    command.set_defaults(run=_bundle_ca)
    command = commands.add_parser("secureboot", help="replace, in three steps, the key that signs kernel images")
    command.add_argument("step", choices=("prepare", "adopt", "retire"))
    command.add_argument("dir", metavar="KEYS", type=Path, help="key directory")
    command.set_defaults(run=_secureboot)
    command = keys_commands.add_parser("ceremony", help="print the protocol of a key ceremony, to be signed by hand")
    command.add_argument("dir", metavar="DIR", type=Path, help="key directory")
    command.add_argument("--person", action="append", required=True, help="who is there (repeatable, at least two)")
    command.add_argument("--occasion", required=True, help="for example: first keys")
    command.add_argument("--out", metavar="FILE", type=Path, help="also write it to FILE")
    command.set_defaults(run=_ceremony)


def _add_making(commands: _Commands) -> None:
    command = commands.add_parser("bundle", help="make a release from an image")
    command.add_argument("--image", metavar="DIR", type=Path, required=True, help="the image's artifact directory")
    command.add_argument("--keys", metavar="DIR", type=Path, required=True, help="key directory")
    command.add_argument("--out", metavar="DIR", type=Path, required=True, help="release directory to make")
    command.add_argument("--notes-ja", metavar="FILE", type=Path, required=True, help="what owners read, in Japanese")
    command.add_argument("--notes-en", metavar="FILE", type=Path, required=True, help="the same in English")
    command.add_argument("--importance", choices=[str(item) for item in Importance], default="scheduled")
    command.add_argument("--min-from", metavar="VERSION", default="", help="oldest version that may go to it directly")
    command.add_argument(
        "--level",
        type=int,
        choices=range(1, LEVEL + 1),
        default=LEVEL,
        metavar="1-19",
        help="compression of the full payload",
    )
    command.add_argument("--wheels", metavar="LOCK", type=Path, default=Path("requirements/device.lock"))
    command.add_argument("--revision", default="", help="revision of the sources, for the provenance")
    command.add_argument("--certificate", metavar="FILE", type=Path, help="of the token's key")
    _add_token(command)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_bundle)

    command = commands.add_parser("delta", help="add to a release the way from an older one")
    command.add_argument("--from", dest="base", metavar="DIR", type=Path, required=True, help="older release directory")
    command.add_argument("--to", metavar="DIR", type=Path, required=True, help="release directory to add it to")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_delta)


def _add_publishing(commands: _Commands) -> None:
    group = commands.add_parser("firmware", help="publish releases").add_subparsers(metavar="COMMAND", required=True)
    command = group.add_parser("stage", help="check a release and write what its owners have to sign")
    _add_repository(command)
    command.add_argument("release", metavar="RELEASE", type=Path, help="release directory")
    command.add_argument("--out", metavar="FILE", type=Path, required=True, help="file to write")
    command.set_defaults(run=_stage)

    command = group.add_parser("sign", help="add one signature to a staged file; needs no network")
    command.add_argument("staged", metavar="FILE", type=Path, help="from firmware stage")
    command.add_argument("key", metavar="KEYFILE", type=Path, help="private key; with --pkcs11 the public one")
    _add_token(command)
    command.set_defaults(run=_sign)

    command = group.add_parser("release", help="make a signed release visible to boxes")
    _add_repository(command)
    command.add_argument("release", metavar="RELEASE", type=Path, help="release directory")
    command.add_argument("staged", metavar="FILE", type=Path, help="the staged file with its signatures")
    command.set_defaults(run=_make_visible)

    command = group.add_parser("publish", help="all three at once, with the keys of a development key directory")
    _add_repository(command)
    command.add_argument("release", metavar="RELEASE", type=Path, nargs="+", help="release directories, oldest first")
    command.set_defaults(run=_publish)

    command = group.add_parser("add-owner", help="let one more key sign firmware; how many must does not change")
    _add_repository(command)
    command.add_argument("public_key", metavar="PEM", type=Path, help="Ed25519 or, for tokens, P-256")
    command.set_defaults(run=_add_owner)

    command = group.add_parser("list", help="show what is published")
    _add_repository(command)
    command.set_defaults(run=_list)

    command = group.add_parser("show", help="check and show a release directory")
    command.add_argument("release", metavar="RELEASE", type=Path, help="release directory")
    command.add_argument("--certificate", metavar="FILE", type=Path, help="bundle certificate, to check the provenance")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_show)

    command = group.add_parser("stick", help="write a release to a USB stick, for boxes without a network")
    _add_repository(command)
    command.add_argument("out", metavar="DIR", type=Path, help="where the stick is mounted; its label must be OMAMORI")
    command.add_argument("--board", required=True)
    command.add_argument("--version", required=True)
    command.add_argument("--from", dest="base", metavar="VERSION", action="append", default=[], help="also this delta")
    command.add_argument("--valid", metavar="DURATION", default="30d", help="at most 90d (default: %(default)s)")
    command.set_defaults(run=_stick)
