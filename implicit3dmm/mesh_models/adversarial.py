"""The decoupled adversarial model (Abrevaya, Boukhayma, Wuhrer and Boyer, ICCV 2019): heads that no one was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS
from implicit3dmm.mesh_models.adversarial_networks import Generator
from implicit3dmm.mesh_models.adversarial_start import LinearStart
from implicit3dmm.mesh_models.adversarial_teacher import Teacher, TeachingConfig
from implicit3dmm.mesh_models.base import Draw, MeshNetwork, register_network
from implicit3dmm.mesh_models.code_search import nearest_codes
from implicit3dmm.mesh_models.completion import Completion
from implicit3dmm.mesh_models.face_patch import FacePatch
from implicit3dmm.mesh_models.topology import Topology

NOISE = "noise"
"""Name of the code of what no factor accounts for."""

LOOKED_AT = 500
"""Training heads, drawn from all, that start, completion and smoothness are learnt from."""

HEADS_OF_A_LABEL = 4
"""Heads whose codes make that of their label, where a training starts from another one."""


@dataclass(frozen=True)
class AdversarialConfig:
    """Sizes of the generator and its codes, and how it is taught; the paper's own sizes are not known."""

    factors: dict[str, int] = field(default_factory=lambda: {"identity": 65, "expression": 20})
    """Size of the code of each factor."""
    unlabelled: tuple[str, ...] = ()
    """Factors whose labels are not used: they have a code, but neither classification nor feature loss."""
    noise_dim: int = 5
    """Size of the code of what no factor accounts for."""
    width: int = 512
    """Of the generator's hidden layer."""
    rank: int | None = None
    """Of the matrix from there to the vertices, which is nearly all of the file; whole by default, as in the paper."""
    regions: tuple[str, ...] = FACE_REGIONS
    """What the generator makes and the critic sees; the rest of a head follows."""
    start: Literal["factors", "mean"] = "factors"
    """What the generator makes before its first step: heads that vary as the training heads do, each code by what its
    factor's labels account for; or the mean head, give or take little, as the paper has it."""
    betas: tuple[float, float] = (0.0, 0.9)
    """Adam's memory of gradients and of their squares."""
    teaching: TeachingConfig = field(default_factory=TeachingConfig)
    """Sizes of the critic and weights of the losses."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        if not self.factors or NOISE in self.factors or min(self.factors.values()) < 1:
            raise InputError(f"factors is {self.factors}; give one or more sizes of at least 1, of no factor {NOISE!r}")
        unknown = [name for name in self.unlabelled if name not in self.factors]
        if unknown:
            raise InputError(f"unlabelled names {unknown[0]!r}; the factors are {', '.join(self.factors)}")
        if self.noise_dim < 0:
            raise InputError(f"noise_dim is {self.noise_dim}; expected at least 0")
        if self.width < 1:
            raise InputError(f"width is {self.width}; expected at least 1")
        size = sum(self.factors.values()) + self.noise_dim
        if self.rank is not None and self.rank < (size if self.start == "factors" else 1):
            raise InputError(f"rank is {self.rank}; give at least {size}, the size of all codes, or start: mean")
        if not self.regions:
            raise InputError("regions is empty; name at least one")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas is {self.betas}; give numbers from 0 to below 1")


@register_network("adversarial", AdversarialConfig)
class Adversarial(MeshNetwork):
    """A generator of heads whose code has a part for each factor; all parts are standard normal."""

    def __init__(self, config: AdversarialConfig, topology: Topology):
        self.sizes = {**config.factors, NOISE: config.noise_dim}
        super().__init__(config, topology, latent_dim=sum(self.sizes.values()))
        self.factors = tuple(config.factors)
        self._patch = FacePatch.of(topology, config.regions)
        self.register_buffer("patch", torch.from_numpy(np.flatnonzero(self._patch.inside)), persistent=False)
        self.generator = Generator(self.latent_dim, config.width, len(self.patch), config.rank)
        self.completion = Completion(topology.triangles, self._patch.inside)
        self.teacher: Teacher | None = None
        self._label_codes: dict[str, np.ndarray] | None = None
        self._started = False
        self._seed = int(torch.randint(2**31, ()))

    def see(self, heads: RegisteredHeads) -> None:
        """As in `MeshNetwork`; and starts the generator, and learns how the rest of a head goes with its face.

        Raises:
            InputError: the heads have no label of one of the factors, or labels out of range.
        """
        super().see(heads)
        labels, inside = self._labels(heads), self._patch.inside
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            chosen = self._some(heads)
            self.completion.learn((heads.vertices[chosen] - heads.mean) / float(self.unit))
            if self.config.start == "factors":
                start = LinearStart.of(heads, np.flatnonzero(inside), labels, self.sizes, chosen)
                components = {name: each / float(self.unit) for name, each in start.components.items()}
                self.generator.start_from(components, {name: self.place(name) for name in self.sizes})
                self._label_codes = start.label_codes

    def prepare(self, heads: RegisteredHeads) -> None:
        """Makes the critic, for the labels that these heads have, and gives every label its code.

        A generator that was trained before has codes for what it shows: a label's is then the mean of those that are
        found for some of its heads.

        Raises:
            InputError: the heads have no label of one of the factors, or labels out of range.
        """
        labels, mean = self._labels(heads), self.mean.cpu().numpy()
        if self._label_codes is None and self._started:
            self._label_codes = {name: self._codes_of_labels(heads, name, own) for name, own in labels.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            displacements = (heads.vertices[self._some(heads)] - mean)[:, self._patch.inside] / float(self.unit)
            self.teacher = Teacher(
                self.config.teaching,
                self.sizes,
                labels,
                self._patch.image(mean, self.config.teaching.image_size),
                Mesh(mean[self._patch.inside], self._patch.faces),
                displacements,
                self._label_codes or {},
            )

    @property
    def remark(self) -> str:
        """What share of the vertices the critic's images show."""
        return self.teacher.remark if self.teacher else ""

    def _some(self, heads: RegisteredHeads) -> Int[np.ndarray, " n"]:
        """Rows of heads that start, completion and smoothness are learnt from."""
        return torch.randperm(len(heads))[:LOOKED_AT].numpy()

    @torch.no_grad()
    def _codes_of_labels(
        self, heads: RegisteredHeads, factor: str, labels: Int[np.ndarray, " r"]
    ) -> Float[np.ndarray, "k d"]:
        codes = np.zeros((int(labels.max()) + 1, self.sizes[factor]), np.float32)
        for label in np.unique(labels[labels != UNKNOWN]):
            rows = np.flatnonzero(labels == label)
            chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), HEADS_OF_A_LABEL)).astype(int)]
            vertices = torch.from_numpy(heads.vertices[chosen]).to(self.mean)
            codes[label] = self.encode(vertices)[:, self.place(factor)].mean(0).cpu().numpy()
        return codes

    def finish(self, heads: RegisteredHeads) -> None:
        """Leaves behind what only the training needed; codes stay standard normal."""
        self.teacher = self._label_codes = None

    def _labels(self, heads: RegisteredHeads) -> dict[str, Int[np.ndarray, " r"]]:
        """Labels of the factors that are taught."""
        if not self.config.teaching.critic_classification:
            return {}
        labels = {name: heads.labels.get(name) for name in self.config.factors if name not in self.config.unlabelled}
        for name, values in labels.items():
            if values is None or values.max() == UNKNOWN:
                known = ", ".join(heads.labels)
                raise InputError(f"no head has a label of the factor {name!r}; there are {known}; name it unlabelled")
            if values.max() >= len(heads):
                raise InputError(
                    f"labels of {name!r} go up to {values.max()} for {len(heads)} heads; count them from 0"
                )
        return labels

    def optimiser(self, *, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
        """One Adam of both networks; a step moves the one that has gradients.

        Raises:
            InputError: a weight decay is asked for.
        """
        if weight_decay:
            raise InputError(f"weight_decay is {weight_decay}; the adversarial model is trained by Adam; give 0")
        assert self.teacher is not None, "the network has seen no heads"
        groups = [{"params": list(part.parameters())} for part in (self.generator, self.teacher.critic)]
        return torch.optim.Adam(groups, lr=learning_rate, betas=self.config.betas, fused=True)

    def train_step(
        self, draw: Draw, optimiser: torch.optim.Optimizer, *, batch: int, generator: torch.Generator
    ) -> dict[str, float]:
        """Some steps of the critic, each on heads of its own, then one of the generator.

        Raises:
            InputError: the batch is odd.
        """
        if batch % 2:
            raise InputError(f"batch is {batch}; give an even number, as heads are generated in pairs")
        teacher = self.teacher
        drawing = {"noise": teacher.instance_noise(), "generator": generator}
        turn = teacher.next_turn()
        for _ in range(teacher.config.critic_steps):
            heads = draw(batch)
            codes, _ = teacher.draw_codes(turn, batch, generator)
            with torch.no_grad():
                fake = self.generator(codes)
            real = (heads.vertices[:, self.patch] - self.mean[self.patch]) / self.unit
            losses = teacher.critic_losses(real, fake, heads.labels, **drawing)
            _step(optimiser, losses["critic"])
        codes, labels = teacher.draw_codes(turn, batch, generator)
        teacher.critic.requires_grad_(False)
        losses |= teacher.generator_losses(self.generator(codes), turn, labels, **drawing)
        _step(optimiser, losses["total"])
        teacher.critic.requires_grad_(True)
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def encode(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b d"]:
        """Codes whose faces come nearest to those of the heads; searched for, as there is no encoder."""
        wanted = (vertices[:, self.patch] - self.mean[self.patch]) / self.unit
        return nearest_codes(self.generator, wanted, unit_mm=float(self.unit) * UNIT_MM)

    def decode(self, codes: Float[Tensor, "b d"]) -> Float[Tensor, "b v 3"]:
        """Heads of codes, canonical units."""
        return self.mean + self.unit * self.completion(self.generator(codes), self.mean)

    def place(self, factor: str) -> slice:
        """Where in a code the part of a factor, or of the noise, stands.

        Raises:
            InputError: there is no such factor.
        """
        if factor not in self.sizes:
            raise InputError(f"no factor {factor!r}; there are {', '.join(self.sizes)}")
        names = list(self.sizes)
        start = sum(self.sizes[name] for name in names[: names.index(factor)])
        return slice(start, start + self.sizes[factor])

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """As in `MeshNetwork`; the critic starts afresh."""
        super().start_from(weights)
        self._started = True


def _step(optimiser: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
