"""From a batch of samples to named losses, inside one forward."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from implicit3dmm.fields import ConditionedField, Field
from implicit3dmm.latents import LatentBank
from implicit3dmm.training import losses
from implicit3dmm.training.config import TrainingConfig


class Objective(nn.Module):
    """Field and codes together; a call returns losses, so that data-parallel wrappers can wrap it whole."""

    def __init__(self, field: Field, bank: LatentBank, config: TrainingConfig):
        super().__init__()
        self.field = field
        self.bank = bank
        self.config = config

    def forward(
        self,
        records: Int[Tensor, " b"],
        surface: Float[Tensor, "b n 3"],
        normals: Float[Tensor, "b n 3"],
        neutral: Float[Tensor, "b n 3"],
        stages: Float[Tensor, "b 2 2 n 3"],
        parts: Int[Tensor, "b n"],
        points: Float[Tensor, "b m 3"],
        distances: Float[Tensor, "b m"],
        anchors: Float[Tensor, "b 39 3"],
        keypoints: Float[Tensor, "b 2 2 k 3"],
        keypoint_parts: Int[Tensor, "b k"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted losses by name, "total" being their weighted sum.

        Gradients with respect to points cost as much again as the rest, so only the first `gradient_points` surface
        points of each record (blocks are shuffled) and half as many others have them.
        """
        codes = self.bank.codes(records)
        conditioned = self.field.condition(codes)
        named = {}
        if self.config.losses.shape:
            named |= self._shape_losses(conditioned, surface, normals, points, distances)
        if (error := conditioned.warp_error(surface, neutral)) is not None:
            named["correspondence"] = losses.correspondence_loss(error)
        if conditioned.anchors is not None:
            named["landmark"] = losses.landmark_loss(conditioned.anchors, anchors)
        places, labels = torch.cat([keypoints, stages], dim=3), torch.cat([keypoint_parts, parts], dim=1)
        errors = conditioned.stage_errors(places, labels)
        if errors is not None:
            named["landmark"] = errors.landmark.mean()
            named["consistency"] = errors.consistency.mean()
            named["correction"] = errors.correction.mean()
        if conditioned.embeddings is not None:
            named["symmetry"] = losses.symmetry_loss(conditioned.embeddings)
        named["code"] = losses.code_loss(codes)
        named["total"] = sum(getattr(self.config.losses, name) * loss for name, loss in named.items())
        return named

    def _shape_losses(
        self,
        conditioned: ConditionedField,
        surface: Float[Tensor, "b n 3"],
        normals: Float[Tensor, "b n 3"],
        points: Float[Tensor, "b m 3"],
        distances: Float[Tensor, "b m"],
    ) -> dict[str, Float[Tensor, ""]]:
        some, off = self.config.gradient_points, self.config.gradient_points // 2
        sdf, gradient = conditioned.sdf_and_gradient(
            torch.cat([surface[:, :some], points[:, :off]], dim=1), create_graph=True
        )
        values = conditioned.sdf(torch.cat([surface[:, some:], points[:, off:]], dim=1))
        rest = surface.shape[1] - some
        on_surface = torch.cat([sdf[:, :some], values[:, :rest]], dim=1)
        around = torch.cat([sdf[:, some:], values[:, rest:]], dim=1)
        return {
            "surface": losses.surface_loss(on_surface),
            "distance": losses.distance_loss(around, distances, softness=self.config.distance_softness),
            "normal": losses.normal_loss(gradient[:, :some], normals[:, :some]),
            "eikonal": losses.eikonal_loss(gradient),
        }
