"""Whole heads of a part of their surface."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from implicit3dmm.data.axes import gram_axes
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.grafting import Patch, borders

COMPONENTS = 40
"""Principal components of the part that the rest of the head depends on."""

SPREAD_LEFT = 1e-3
"""Components with less than this share of the largest one's spread are left out."""


class Completion(nn.Module):
    """What is likeliest of the rest of a head, given a part of it.

    The rest is the linear least-squares estimate from the part's principal components. What is then left between the
    estimate and the part at the border is continued into the rest as in grafts, so that no seam shows.
    """

    def __init__(self, triangles: Int[np.ndarray, "t 3"], inside: Bool[np.ndarray, " v"]):
        """An empty one; `learn` fills it.

        Args:
            triangles: of the closed head.
            inside: the vertices of the part.
        """
        super().__init__()
        self._triangles = triangles
        self._inside = inside
        _, border = borders(~inside, triangles)
        part, rest = int(inside.sum()), int((~inside).sum())
        self._border = np.flatnonzero(border[inside])
        order = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])
        self.register_buffer("_back", torch.from_numpy(np.argsort(order)), persistent=False)
        self.axes = nn.Parameter(torch.zeros(COMPONENTS, 3 * part), requires_grad=False)
        self.effects = nn.Parameter(torch.zeros(COMPONENTS, 3 * rest), requires_grad=False)
        self.blend = nn.Parameter(torch.zeros(rest, len(self._border)), requires_grad=False)

    @torch.no_grad()
    def learn(self, mean: Float[np.ndarray, "v 3"], displacements: Float[np.ndarray, "r v 3"]) -> None:
        """Learns what goes with what.

        Args:
            mean: the mean head, canonical units.
            displacements: of heads from it, in any unit.
        """
        rows = displacements[:, self._inside].reshape(len(displacements), -1)
        left, spread = gram_axes(rows)
        rank = min(COMPONENTS, int((spread > SPREAD_LEFT * spread[0]).sum()))
        scores = left[:, :rank] / spread[:rank]
        others = displacements[:, ~self._inside].reshape(len(displacements), -1)
        for table, values in ((self.axes, scores.T @ rows), (self.effects, left[:, :rank].T @ others)):
            table.zero_()
            table[:rank] = torch.from_numpy(values)
        self.effects[:rank] /= torch.from_numpy(spread[:rank, None])
        self.blend.copy_(torch.from_numpy(Patch.of(~self._inside, Mesh(mean, self._triangles)).blend))

    def forward(self, part: Float[Tensor, "b p 3"]) -> Float[Tensor, "b v 3"]:
        """Displacements of whole heads.

        Args:
            part: those of the part, in the unit that was learnt.
        """
        scores = part.flatten(1) @ self.axes.T
        rest = (scores @ self.effects).unflatten(1, (-1, 3))
        known = (scores @ self.axes).unflatten(1, (-1, 3))
        gap = (part - known)[:, self._border].transpose(0, 1).flatten(1)  # one product for all heads
        bend = (self.blend @ gap).unflatten(1, (len(part), 3)).transpose(0, 1)
        return torch.cat([part, rest + bend], dim=1)[:, self._back]
