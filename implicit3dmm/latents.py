"""Latent codes: what one set of them is, the bank that training learns, and the prior that it leaves behind."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Codes = dict[str, Tensor]
"""Named latent tensors of a batch of shapes, such as {"identity": (b, 256)}."""


EXPRESSION = "expression"
"""Name of the code of an expression; zero is neutral."""


@dataclass(frozen=True)
class LatentSpec:
    """One kind of code that a field needs."""

    name: str
    dim: int
    init_std: float
    """Standard deviation that a code is drawn with where nothing better starts it."""
    per: Literal["subject", "record"]
    """Whether all records of a subject share one row (identity), or each record has its own (expression)."""
    per_anchor: bool = False
    """Whether the code is 39 codes of equal size, one after the other, that each describe the place of an anchor."""
    part: str = ""
    """The part of the head that it describes; a record with parts of several subjects has that part's donor's."""
    names: tuple[str, ...] = ()
    """Names of its numbers, where they are parameters that the corpus knows, such as weights of expression units; such
    a code is not learnt."""


class LatentBank(nn.Module):
    """The codes of a training corpus: for each code name a table, and the row that each record reads.

    Tables are learnt, but for those of known parameters. Neutral records have the code zero wherever each record has a
    code of its own.
    """

    def __init__(
        self,
        specs: Sequence[LatentSpec],
        subject_of_record: Int[Tensor, " r"],
        generator: torch.Generator,
        *,
        known: Mapping[str, Float[Tensor, "r d"]] | None = None,
        neutral: Bool[Tensor, " r"] | None = None,
        donors: Mapping[str, Int[Tensor, " r"]] | None = None,
    ):
        """Draws every row to be learnt from a centred Gaussian of its spec's spread.

        Args:
            specs: the kinds of codes.
            subject_of_record: number of the subject that each record shows.
            generator: source of the draws.
            known: parameters of each record, for each spec that names its numbers.
            neutral: which records show no expression; by default none is known to.
            donors: number of the subject that each part of each record is of; by default the record's subject.
        """
        super().__init__()
        self.specs = tuple(specs)
        self.tables = nn.ParameterDict()
        for spec in self.specs:
            rows = subject_of_record if spec.per == "subject" else torch.arange(len(subject_of_record))
            count = int(rows.max()) + 1
            if spec.part and donors is not None:
                rows = donors[spec.part]
            self.register_buffer(f"_rows_{spec.name}", rows.long().clone())  # a file holds no shared memory
            if spec.names:
                self.register_buffer(f"_known_{spec.name}", known[spec.name].float(), persistent=False)
            else:
                drawn = torch.randn(count, spec.dim, generator=generator)
                self.tables[spec.name] = nn.Parameter(spec.init_std * drawn)
        moves = torch.ones(len(subject_of_record)) if neutral is None else (~neutral).float()
        self.register_buffer("_moves", moves, persistent=False)

    def rows(self, name: str) -> Int[Tensor, " r"]:
        """Row of the table `name` that each record reads."""
        return getattr(self, f"_rows_{name}")

    def table(self, name: str) -> Float[Tensor, "n d"]:
        """All rows of the code `name`."""
        return self.tables[name] if name in self.tables else getattr(self, f"_known_{name}")

    def codes(self, records: Int[Tensor, " b"]) -> Codes:
        """The codes of a batch of records."""
        codes = {spec.name: self.table(spec.name)[self.rows(spec.name)[records]] for spec in self.specs}
        for spec in self.specs:
            if spec.per == "record":
                codes[spec.name] = codes[spec.name] * self._moves[records, None]
        return codes

    @torch.no_grad()
    def start_from(self, name: str, table: Float[Tensor, "n d"]) -> None:
        """Overwrites the table `name`, as principal components do at the start of a training."""
        self.tables[name].copy_(table)


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution of codes by its principal axes."""

    mean: Float[Tensor, " d"]
    axes: Float[Tensor, "d d"]
    """Orthonormal principal axes in columns, by falling spread."""
    std: Float[Tensor, " d"]

    @classmethod
    def of(cls, table: Float[Tensor, "n d"], *, about_zero: bool = False, shrinkage: float = 0.01) -> "Gaussian":
        """Mean and covariance of the rows.

        Args:
            table: codes, at least two rows.
            about_zero: take zero for the mean, and the second moments for the covariance.
            shrinkage: share of an isotropic covariance of the same trace that is mixed in, so that directions
                which few training shapes explored stay possible (and the covariance invertible).
        """
        mean = torch.zeros_like(table[0]) if about_zero else table.mean(0)
        centred = (table - mean).double()
        covariance = centred.T @ centred / (len(table) - 1)
        isotropic = covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        variance, axes = torch.linalg.eigh((1 - shrinkage) * covariance + shrinkage * isotropic)
        return cls(mean, axes.flip(1).to(table.dtype), variance.flip(0).sqrt().to(table.dtype))

    def pooled(self, other: "Gaussian") -> "Gaussian":
        """Mean and covariance of draws that come from either distribution with even chances."""
        mean = (self.mean + other.mean) / 2
        apart = ((self.mean - other.mean) / 2).double()
        covariance = (self._covariance() + other._covariance()) / 2 + torch.outer(apart, apart)
        variance, axes = torch.linalg.eigh(covariance)
        return Gaussian(mean, axes.flip(1).to(mean.dtype), variance.flip(0).clamp_min(0).sqrt().to(mean.dtype))

    def _covariance(self) -> Float[Tensor, "d d"]:
        scaled = (self.axes * self.std).double()
        return scaled @ scaled.T

    def whiten(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Coordinates along the principal axes in standard deviations."""
        return (codes - self.mean) @ self.axes / self.std

    def unwhiten(self, coordinates: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Codes of the coordinates that `whiten` gives."""
        return self.mean + (coordinates * self.std) @ self.axes.T

    def to(self, device: torch.device | str) -> "Gaussian":
        """The same distribution on `device`."""
        return Gaussian(self.mean.to(device), self.axes.to(device), self.std.to(device))


@dataclass(frozen=True)
class LatentPrior:
    """What the training codes look like: a Gaussian for each code name."""

    parts: Mapping[str, Gaussian]

    @classmethod
    def of(cls, bank: LatentBank, records: Int[Tensor, " b"]) -> "LatentPrior":
        """The prior that a trained bank leaves behind. Codes of records lie about zero, which is neutral.

        Args:
            bank: the trained codes.
            records: the records that trained them, of two subjects at least; other rows are still noise.
        """
        return cls(
            {
                spec.name: Gaussian.of(
                    bank.table(spec.name).detach()[bank.rows(spec.name)[records].unique()].cpu(),
                    about_zero=spec.per == "record",
                )
                for spec in bank.specs
            }
        )

    def pooled(self, other: "LatentPrior") -> "LatentPrior":
        """The prior of heads that come from either population with even chances; codes that `other` lacks stay."""
        known = other.parts
        return LatentPrior(
            {name: part.pooled(known[name]) if name in known else part for name, part in self.parts.items()}
        )

    def mean(self, count: int = 1) -> Codes:
        """`count` times the mean codes."""
        return {name: part.mean.expand(count, -1).clone() for name, part in self.parts.items()}

    def sample(
        self, count: int, *, temperature: float = 1.0, expressions: float = 0.0, generator: torch.Generator
    ) -> Codes:
        """Draws codes.

        Args:
            count: how many of each name.
            temperature: scales the standard deviations: 0 gives the mean, 1 the prior.
            expressions: the same for codes of expressions; 0 gives neutral heads.
            generator: of the draws.
        """
        scale = {name: expressions if name == EXPRESSION else temperature for name in self.parts}
        return self.unwhiten(
            {
                name: scale[name] * torch.randn(count, len(part.mean), generator=generator)
                for name, part in self.parts.items()
            }
        )

    def whiten(self, codes: Codes) -> Codes:
        """Coordinates of codes along the principal axes, in standard deviations."""
        return {name: part.whiten(codes[name]) for name, part in self.parts.items()}

    def unwhiten(self, coordinates: Codes) -> Codes:
        """Codes from coordinates along the principal axes, in standard deviations."""
        return {name: part.unwhiten(coordinates[name]) for name, part in self.parts.items()}

    def to(self, device: torch.device | str) -> "LatentPrior":
        """The same prior on `device`."""
        return LatentPrior({name: part.to(device) for name, part in self.parts.items()})

    def log_density(self, codes: Codes) -> Float[Tensor, " b"]:
        """Log density of each shape's codes under the prior, in nats."""
        total = torch.zeros(())
        for name, part in self.parts.items():
            squared = part.whiten(codes[name]).square().sum(-1)
            constant = 2 * part.std.log().sum() + len(part.mean) * math.log(2 * math.pi)
            total = total - 0.5 * (squared + constant)
        return total

    def to_tensors(self) -> dict[str, Tensor]:
        """Named tensors for a weights file."""
        return {
            f"prior.{name}.{key}": getattr(part, key).contiguous()
            for name, part in self.parts.items()
            for key in ("mean", "axes", "std")
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], names: Sequence[str]) -> "LatentPrior":
        """Reads what `to_tensors` wrote; raises KeyError where a tensor is missing."""
        return cls({n: Gaussian(*(tensors[f"prior.{n}.{key}"] for key in ("mean", "axes", "std"))) for n in names})
