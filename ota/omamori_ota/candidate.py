"""A pack that a channel tries on a part of its boxes before everyone gets it.

The candidate is a second target of the channel, signed like the first. Its offer says how much of the fleet it is for;
which boxes these are, every box works out by itself (`omamori_protocol.rings`). It ends in one of two ways:

* promoted: it becomes the channel's pack;
* withdrawn: the channel's offer names its serial, and boxes that have it go back to the channel's pack.
"""

from __future__ import annotations

import dataclasses

from tuf.api.metadata import TargetFile

from omamori_protocol.feed_offer import MAX_WITHDRAWN, FeedOffer, OfferedIncrement, increment_target
from omamori_protocol.feed_pack import MAX_PACK_BYTES
from omamori_protocol.rings import PERMILLE
from omamori_protocol.topics import candidate_target, feed_target

from .errors import RejectedError
from .files import read_bounded
from .packs import ReadIncrement, VerifiedPack
from .repository import Current, Published, Repository, kept_increments, offer_of
from .roles import FEED


class Candidate:
    """The candidate of one channel.

    Args:
        repository: Where the channel is.
        channel: Its name.
    """

    def __init__(self, repository: Repository, channel: str) -> None:
        self._repository = repository
        self._channel = channel
        self._path = feed_target(channel)
        self._candidate_path = candidate_target(channel)

    def publish(self, pack: VerifiedPack, permille: int, increment: ReadIncrement | None = None) -> Published:
        """Offer a pack to a part of the fleet.

        Args:
            pack: The pack.
            permille: Size of that part.
            increment: What leads to it from the channel's pack.

        Raises:
            RejectedError: The pack is of another channel or not newer than everything offered before, the channel
                has no pack to go back to, or the increment does not fit.
            SetupError: The repository is not one, or not signed by these keys.
            TransientError: Another publisher is at work.
        """
        _check_permille(permille)
        if pack.manifest.channel != self._channel:
            raise RejectedError(f"the pack is for the channel {pack.manifest.channel!r}, not {self._channel!r}")
        serial = pack.manifest.serial
        with self._repository.changing() as current:
            targets = current.delegated[FEED].signed.targets
            before = targets.get(self._path)
            if before is None:
                raise RejectedError(
                    "the channel has no pack yet: boxes could not go back",
                    hint="publish the first one for everyone: omamori-ota publish feed",
                )
            published = offer_of(before)
            tried = targets.get(self._candidate_path)
            newest = max(published.serial, *published.withdrawn, offer_of(tried).serial if tried is not None else 0)
            if serial <= newest:
                raise RejectedError(
                    f"serial {serial} is not greater than {newest}, which has been offered",
                    hint=f"build the pack again with --serial {newest + 1} or more",
                )
            increments: list[OfferedIncrement] = []
            if increment is not None:
                self._repository.check_increment(increment, before, published.serial, pack)
                new = OfferedIncrement(increment.start, increment.goal, len(increment.data))
                increments = kept_increments([*published.increments, new], len(pack.data))
                if increments:
                    path = increment_target(self._channel, new.start, new.goal)
                    self._repository.put(targets, path, increment.data, {"format": 1})
            if tried is not None:
                self._forget_increments(current, offer_of(tried), published)
            offer = FeedOffer(serial, pack.manifest_sha256, tuple(increments), permille)
            self._repository.put(targets, self._candidate_path, pack.data, offer.to_custom())
            return self._sign(current, serial)

    def offer(self) -> FeedOffer:
        """Return what is offered to whom now.

        Raises:
            RejectedError: There is no candidate.
        """
        with self._repository.changing() as current:
            return self._offer(current)

    def newest(self) -> int:
        """Return the newest serial on offer: the candidate's, or without one that of the channel's pack.

        Raises:
            RejectedError: Nothing is published for the channel.
        """
        with self._repository.changing() as current:
            targets = current.delegated[FEED].signed.targets
            target = targets.get(self._candidate_path) or targets.get(self._path)
            if target is None:
                raise RejectedError(f"nothing is published for the channel {self._channel!r}")
            return offer_of(target).serial

    def reach(self, permille: int) -> Published:
        """Offer the candidate to more of the fleet.

        Raises:
            RejectedError: There is no candidate, or it has reached that much already.
        """
        _check_permille(permille)
        with self._repository.changing() as current:
            targets = current.delegated[FEED].signed.targets
            offer = self._offer(current)
            if permille <= offer.permille:
                raise RejectedError(f"the candidate has reached {offer.permille} ‰ already")
            wider = dataclasses.replace(offer, permille=permille)
            targets[self._candidate_path].unrecognized_fields["custom"] = wider.to_custom()
            return self._sign(current, offer.serial)

    def promote(self) -> Published:
        """Make the candidate the channel's pack, for everyone.

        Raises:
            RejectedError: There is no candidate.
        """
        with self._repository.changing() as current:
            targets = current.delegated[FEED].signed.targets
            offer, published = self._offer(current), offer_of(targets[self._path])
            data = read_bounded(self._repository.place(targets[self._candidate_path]), MAX_PACK_BYTES)
            for old in published.increments:
                if old not in offer.increments:
                    targets.pop(increment_target(self._channel, old.start, old.goal), None)
            final = dataclasses.replace(offer, permille=PERMILLE)
            self._repository.put(targets, self._path, data, final.to_custom())
            del targets[self._candidate_path]
            return self._sign(current, offer.serial)

    def withdraw(self) -> Published:
        """Take the candidate back; boxes that have it return to the channel's pack.

        Raises:
            RejectedError: There is no candidate.
        """
        with self._repository.changing() as current:
            targets = current.delegated[FEED].signed.targets
            offer, published = self._offer(current), offer_of(targets[self._path])
            self._forget_increments(current, offer, published)
            withdrawn = (*published.withdrawn, offer.serial)[-MAX_WITHDRAWN:]
            marked = dataclasses.replace(published, withdrawn=withdrawn)
            targets[self._path].unrecognized_fields["custom"] = marked.to_custom()
            del targets[self._candidate_path]
            return self._sign(current, offer.serial)

    def _offer(self, current: Current) -> FeedOffer:
        target: TargetFile | None = current.delegated[FEED].signed.targets.get(self._candidate_path)
        if target is None:
            raise RejectedError(f"the channel {self._channel} has no candidate")
        return offer_of(target)

    def _forget_increments(self, current: Current, offer: FeedOffer, published: FeedOffer) -> None:
        for item in offer.increments:
            if item not in published.increments:
                path = increment_target(self._channel, item.start, item.goal)
                current.delegated[FEED].signed.targets.pop(path, None)

    def _sign(self, current: Current, serial: int) -> Published:
        versions = self._repository.sign_delegated(current, [FEED])
        self._repository.prune_targets(current)
        return Published(channel=self._channel, serial=serial, versions=versions)


def _check_permille(permille: int) -> None:
    if not 1 <= permille <= PERMILLE:
        raise RejectedError(f"{permille} ‰ is not a part of the fleet: 1 to {PERMILLE}")
