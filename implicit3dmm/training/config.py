"""What a training is told."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from implicit3dmm.errors import InputError
from implicit3dmm.fields import field_configs


@dataclass(frozen=True)
class LossWeights:
    """Factor of each loss. Distances are in canonical units, 0.01 of which are 2 mm."""

    distance: float = 1.0
    """Signed distances of samples around the surface."""
    surface: float = 1.0
    """The field vanishes on the surface."""
    normal: float = 0.02
    """Its gradient is the normal there."""
    eikonal: float = 0.01
    """Its gradient has length one."""
    landmark: float = 0.1
    """Predicted anchors and landmarks lie at the true ones; fields without either have no such loss."""
    symmetry: float = 1e-4
    """Embeddings of mirrored anchors are alike; fields without embeddings have no such loss."""
    correspondence: float = 1.0
    """The warp takes expressive points to where they lie on the neutral head; fields without a warp have no such
    loss."""
    consistency: float = 0.1
    """Each stage of a cascade takes keypoints to where they belong on the way to the template; other fields have no
    such loss."""
    correction: float = 0.03
    """What a cascade adds to the template's distance stays small; other fields have no such loss."""
    code: float = 1e-6
    """Codes stay small."""

    @property
    def shape(self) -> bool:
        """Whether any loss reads the signed distance; where none does it is not evaluated."""
        return any((self.distance, self.surface, self.normal, self.eikonal))


@dataclass(frozen=True)
class TrainingConfig:
    """How a field is trained."""

    seed: int = 0
    """Seed of weights, codes and batches."""
    steps: int = 40000
    """Optimiser steps."""
    code_steps: int = 0
    """Steps at the start that move codes alone, where the weights are those of a trained model (`start`)."""
    subjects: int | None = None
    """Only so many training subjects of each corpus, the first; all by default."""
    shapes: int = 16
    """Records in a step's batch."""
    surface_points: int = 128
    """Surface points of each record in a step."""
    distance_points: int = 384
    """Signed-distance points of each record in a step."""
    gradient_points: int = 64
    """Surface points of each record that get normal and Eikonal losses (double backward), and half as many
    signed-distance points that get the Eikonal loss."""
    distance_softness: float = 0.05
    """Distance from the surface, canonical units, at which an error counts half."""
    learning_rate: float = 1e-3
    """Adam's rate for the weights."""
    code_learning_rate: float = 5e-4
    """Adam's rate for the codes."""
    warmup: int = 200
    """Steps over which the rates rise from zero."""
    decay: float = 0.4
    """Last share of the steps, over which the rates fall to zero in a straight line."""
    clip: float = 1.0
    """Largest norm of the weights' gradient; the codes' is left as it is."""
    code_start: Literal["pca", "random", "fit"] = "pca"
    """Codes start from the corpus's principal components, from noise, or from a fit of the model in `start` to each
    subject's neutral head. Without "fit" they start from the mean of that model's codes where there is one."""
    identity: Literal["trained", "held"] = "trained"
    """Whether the field of neutral heads inside a warp, with its codes, is trained too or stays as it starts."""
    pca_whitening: float = 0.5
    """How far the principal components are made alike: 0 keeps the proportions of space, 1 equalises."""
    workers: int = 1
    """Threads that share a step's batch on the CPU; 1 leaves threading to torch."""
    losses: LossWeights = dataclasses.field(default_factory=LossWeights)
    """Factor of each loss."""
    checkpoint_every: int = 500
    """Steps between checkpoints; a killed run loses at most these."""
    log_every: int = 50
    """Steps between log lines, which hold the means since the line before; the last step has a line too."""

    def validate(self) -> None:
        """Raises InputError on a value out of range."""
        for name in ("steps", "shapes", "surface_points", "distance_points", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.code_steps <= self.steps:
            raise InputError(f"code_steps is {self.code_steps}; give 0 to steps ({self.steps})")
        if self.subjects is not None and self.subjects < 2:
            raise InputError(f"subjects is {self.subjects}; expected at least 2, or null for all")
        if not 2 <= self.gradient_points <= self.surface_points:
            raise InputError(f"gradient_points is {self.gradient_points}; give 2 to surface_points")
        if self.gradient_points // 2 > self.distance_points:
            raise InputError("gradient_points is more than twice distance_points; give fewer")
        if not 1 <= self.workers <= self.shapes:
            raise InputError(f"workers is {self.workers}; give 1 to shapes ({self.shapes})")
        for name in ("learning_rate", "code_learning_rate", "distance_softness", "clip"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected above 0")
        for name in ("decay", "pca_whitening"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")


@dataclass(frozen=True)
class RunConfig:
    """A training run: which field, trained how."""

    field: Any = dataclasses.field(metadata={"choose": field_configs})
    """The architecture: `name` and its sizes."""
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    """How it is trained."""
    start: str | None = None
    """Released model or weights file that training starts from, of the same field: its weights, and its mean code for
    every head; by default weights are fresh."""
