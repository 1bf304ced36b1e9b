"""Several corpora that train one model together."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from implicit3dmm.data.corpus import Corpus, Samples
from implicit3dmm.errors import InputError


class Corpora:
    """Corpora one after the other: the second's subjects and records are numbered after the first's."""

    def __init__(self, members: Sequence[Corpus]):
        """Joins them.

        Raises:
            InputError: two of them share heads: the same source and seed.
        """
        drawn = [(member.recipe.source, member.recipe.seed) for member in members]
        if len(set(drawn)) < len(drawn):
            raise InputError(f"the corpora {', '.join(m.name for m in members)} share heads; give each its own seed")
        self.name = " + ".join(member.name for member in members)
        starts = _starts([member.recipe.subjects for member in members])
        self.members = dict(zip(starts, members, strict=True))
        """The corpora by the number of their first subject."""
        self._records = dict(zip(_starts([len(member.record_subject) for member in members]), members, strict=True))
        self.anchors = torch.cat([member.anchors for member in members])
        self.record_subject = torch.cat([member.record_subject + start for start, member in self.members.items()])

    def records(self, split: str) -> Int[Tensor, " r"]:
        """Numbers of the records whose subject is in `split`."""
        return torch.cat([member.records(split) + start for start, member in self._records.items()])

    @property
    def neutral(self) -> Bool[Tensor, " r"]:
        """Which records show no expression."""
        return torch.cat([member.neutral for member in self.members.values()])

    @property
    def whole(self) -> Bool[Tensor, " r"]:
        """Which records show one subject, and are no composites."""
        return torch.cat([member.whole for member in self.members.values()])

    @property
    def donors(self) -> dict[str, Int[Tensor, " r"]]:
        """As `Corpus.donors`."""
        drawn = [{part: rows + start for part, rows in m.donors.items()} for start, m in self.members.items()]
        return {part: torch.cat([each[part] for each in drawn]) for part in drawn[0]}

    @property
    def keypoints(self) -> Float[Tensor, "r 2 2 107 3"]:
        """As `Corpus.keypoints`.

        Raises:
            InputError: some of the members have none.
        """
        members = [member.keypoints for member in self.members.values()]
        if len({each.shape[1:] for each in members}) > 1:
            raise InputError(f"some of {self.name} have composites and some have none; train on corpora of one kind")
        return torch.cat(members)

    @property
    def keypoint_parts(self) -> Int[Tensor, " k"]:
        """As `Corpus.keypoint_parts`."""
        return next(iter(self.members.values())).keypoint_parts

    def units(self, names: Sequence[str]) -> Float[Tensor, "r d"]:
        """As `Corpus.units`."""
        return torch.cat([member.units(names) for member in self.members.values()])

    def samples(self, records: Int[Tensor, " b"], count: tuple[int, int], generator: torch.Generator) -> Samples:
        """As `Corpus.samples`; the order of the records is kept."""
        starts = torch.tensor(list(self._records))
        first = starts[torch.bucketize(records, starts, right=True) - 1].tolist()
        drawn = [
            self._records[start].samples(record[None] - start, count, generator)
            for start, record in zip(first, records, strict=True)
        ]
        return Samples(*(torch.cat(field) for field in zip(*drawn, strict=True)))


def by_member(corpus: Corpus | Corpora, subjects: Int[Tensor, " s"]) -> list[tuple[Corpus, int, Int[Tensor, " p"]]]:
    """Which of the rising subjects each member has: the member, its first subject, and its own numbers of them."""
    ends = [*list(corpus.members)[1:], torch.iinfo(torch.int64).max]
    return [
        (member, start, subjects[(subjects >= start) & (subjects < end)] - start)
        for (start, member), end in zip(corpus.members.items(), ends, strict=True)
    ]


def _starts(counts: Sequence[int]) -> list[int]:
    """Number of the first item of each part."""
    return [0, *accumulate(counts[:-1])]
