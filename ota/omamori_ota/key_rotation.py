"""Replaces TUF keys: new keys for a role, so that the old ones are worth nothing any more.

Boxes follow without a gap and without being told. In this order, each step a state that every box accepts:

1. new keys beside the old ones in the key directory (``<name>.next.pem``);
2. delegations, and everything below them, signed with the new keys; whatever the root names is signed with the old keys
   *and* the new ones. The timestamp, written last, makes that visible at once;
3. the next root, signed by the old root keys and the new ones, names only the new keys;
4. the new keys take the old ones' place, which are gone with that.

After a cut the same command goes on where it stopped, and publishing works meanwhile: signers are chosen by what the
published metadata names. `recovery_names` says which keys must change together after a theft: a thief may have raised
version numbers to the end, and boxes forget those only with the keys of the roles that carry them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from .errors import RejectedError
from .files import write_atomic
from .metadata import sign_all, to_bytes
from .repository import Current, Published, Repository
from .roles import DELEGATED, KEY_NAMES, ROLES, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, TOP_LEVEL, role_of


def recovery_names(stolen: Iterable[str]) -> list[str]:
    """Return the names of all keys that have to be replaced when some were stolen, in the order of the table.

    Raises:
        RejectedError: A name is not a key's.
    """
    names = set()
    for name in stolen:
        role = role_of(name)
        names.add(name)
        if role not in (ROOT, TIMESTAMP):
            names |= set(ROLES[TIMESTAMP].keys)
        if role not in (ROOT, TIMESTAMP, SNAPSHOT):
            names |= set(ROLES[SNAPSHOT].keys)
    return [name for name in KEY_NAMES if name in names]


class KeyRotation(Repository):
    """A repository whose keys are being replaced."""

    def rotate(self, names: Sequence[str]) -> Published:
        """Replace keys; see the module for the order.

        Args:
            names: Of the keys, as in the key directory: ``feed``, ``root2``.

        Raises:
            RejectedError: A name is not a key's, or so many root keys at once that boxes could not follow.
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        roles = {role_of(name) for name in names}
        policy = ROLES[ROOT]
        if len(set(names) & set(policy.keys)) > len(policy.keys) - policy.threshold:
            raise RejectedError(
                f"at most {len(policy.keys) - policy.threshold} of the root keys at once",
                hint="replace one after the other; who has lost more than that needs a new root in a new image",
            )
        with self.changing() as current:
            new = {name: self._keys.prepare(name) for name in names}
            for role in roles & set(DELEGATED):
                self._replace(current.targets.signed, role, new)
            with self._also_signing(current, roles, new):
                versions = self._resign(current, roles)
            if roles & set(TOP_LEVEL):
                versions[ROOT] = self._publish_root(current, roles, new)
            for name in names:
                self._keys.adopt(name)
        return Published(versions=versions)

    def replace_lost(self, names: Sequence[str]) -> Published:
        """Replace online keys of which nothing is left; needs the root keys, and for `feed` those of targets.

        The old key cannot sign any more, so there is no state that every box accepts: between the new root and the new
        timestamp, a moment later, a box that asks is refused and asks again. After a cut the same command goes on.

        Args:
            names: Of the keys: ``feed``, ``snapshot``, ``timestamp``.

        Raises:
            RejectedError: A key is not online; offline keys have others beside them, `rotate` them with those.
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        roles = {role_of(name) for name in names}
        if not all(ROLES[role].is_online and ROLES[role].threshold == 1 for role in roles):
            raise RejectedError(
                "only online keys are replaced like this", hint="omamori-ota keys rotate, with the role's other keys"
            )
        self._lost = frozenset(roles)
        try:
            with self.changing() as current:
                new = {name: self._keys.prepare(name) for name in names}
                for role in roles & set(DELEGATED):
                    self._name_instead(current.targets.signed, role, new)
                versions: dict[str, int] = {}
                if roles & set(TOP_LEVEL):
                    versions[ROOT] = self._publish_lost(current, roles, new)
                for name in names:
                    self._keys.adopt(name)
                versions |= self._resign(current, roles)
        finally:
            self._lost = frozenset()
        return Published(versions=versions)

    def _publish_lost(self, current: Current, roles: set[str], new: dict[str, CryptoSigner]) -> int:
        root = current.root
        changed = [self._name_instead(root.signed, role, new) for role in sorted(roles & set(TOP_LEVEL))]
        if any(changed):
            root.signed.version += 1
            root.signed.expires = self._clock() + self._lifetimes.of(ROOT)
            sign_all(root, self._keys.signers(ROOT, root.signed.roles[ROOT].keyids))
            write_atomic(self._metadata / f"{root.signed.version}.root.json", to_bytes(root))
        return root.signed.version

    def _name_instead(self, parent: Root | Targets, role: str, new: dict[str, CryptoSigner]) -> bool:
        """Let `parent` name the new key of a role and no other; return whether anything changed."""
        (name,) = ROLES[role].keys
        keyids = list(self._keyids(parent, role))
        if keyids == [new[name].public_key.keyid]:
            return False
        for keyid in keyids:
            parent.revoke_key(keyid, role)
        parent.add_key(new[name].public_key, role)
        return True

    def _resign(self, current: Current, roles: set[str]) -> dict[str, int]:
        """Publish what the new keys have to sign: the roles themselves, and what refers to them."""
        versions: dict[str, int] = {}
        delegated = [name for name in DELEGATED if name in roles]
        if delegated or TARGETS in roles:
            versions[TARGETS] = self._sign_versioned(current, TARGETS, current.targets)
            current.snapshot.signed.meta[f"{TARGETS}.json"].version = versions[TARGETS]
        if versions or roles & {SNAPSHOT, TIMESTAMP}:
            versions |= self.sign_delegated(current, delegated)
        return versions

    def _publish_root(self, current: Current, roles: set[str], new: dict[str, CryptoSigner]) -> int:
        """Write the next root unless it is there; it needs the keys that the present one names, and its own."""
        root = current.root
        old_signers = self._keys.signers(ROOT, root.signed.roles[ROOT].keyids)
        changed = [self._replace(root.signed, role, new) for role in sorted(roles & set(TOP_LEVEL))]
        if not any(changed):
            return root.signed.version
        root.signed.version += 1
        root.signed.expires = self._clock() + self._lifetimes.of(ROOT)
        new_signers = self._keys.signers(ROOT, root.signed.roles[ROOT].keyids)
        sign_all(root, [*old_signers, *new_signers])
        write_atomic(self._metadata / f"{root.signed.version}.root.json", to_bytes(root))
        return root.signed.version

    def _replace(self, parent: Root | Targets, role: str, new: dict[str, CryptoSigner]) -> bool:
        """Let `parent` name the new keys of a role instead of the old ones; return whether anything changed."""
        changed = False
        for name in ROLES[role].keys:
            if name not in new:
                continue
            keyids = self._keyids(parent, role)
            wanted = new[name].public_key
            if wanted.keyid in keyids:
                continue
            parent.revoke_key(self._keys.current_key(name).keyid, role)
            parent.add_key(wanted, role)
            changed = True
        return changed
