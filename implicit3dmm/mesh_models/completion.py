"""Whole heads of a part of their surface."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from implicit3dmm.data.axes import gram_axes
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.grafting import Patch, borders

COMPONENTS = 32
"""Principal components of the part that the rest of the head depends on."""

STRIDE = 40
"""Of the part's vertices, one in so many tells how much of each component there is, beside those of the border."""

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
        count = int(inside.sum())
        self._border = np.flatnonzero(border[inside])
        self._read = np.concatenate([self._border, np.arange(0, count, STRIDE)])
        order = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])
        self.register_buffer("_back", torch.from_numpy(np.argsort(order)), persistent=False)
        self.scores = nn.Parameter(torch.zeros(3 * len(self._read), COMPONENTS), requires_grad=False)
        self.at_border = nn.Parameter(torch.zeros(COMPONENTS, 3 * len(self._border)), requires_grad=False)
        self.effects = nn.Parameter(torch.zeros(COMPONENTS, 3 * len(inside) - 3 * count), requires_grad=False)
        self.register_buffer("_blend", None, persistent=False)

    @torch.no_grad()
    def learn(self, displacements: Float[np.ndarray, "r v 3"]) -> None:
        """Learns what goes with what.

        Args:
            displacements: of heads from the mean head, in any unit.
        """
        part = displacements[:, self._inside]
        left, spread = gram_axes(part.reshape(len(part), -1))
        left = left[:, : min(COMPONENTS, int((spread > SPREAD_LEFT * spread[0]).sum()))]
        # What one unit of each component, heads having a sum of squares of 1, does to vertices here and there.
        read, border, rest = (
            left.T @ each.reshape(len(part), -1)
            for each in (part[:, self._read], part[:, self._border], displacements[:, ~self._inside])
        )
        for table, values in ((self.scores.T, np.linalg.pinv(read).T), (self.at_border, border), (self.effects, rest)):
            table.zero_()
            table[: len(values)] = torch.from_numpy(np.asarray(values, np.float32))

    def forward(self, part: Float[Tensor, "b p 3"], mean: Float[Tensor, "v 3"]) -> Float[Tensor, "b v 3"]:
        """Displacements of whole heads; the first call takes half a second more.

        Args:
            part: those of the part, in the unit that was learnt.
            mean: the mean head, canonical units; the first call's is kept.
        """
        if self._blend is None:
            blend = Patch.of(~self._inside, Mesh(mean.cpu().numpy(), self._triangles)).blend
            self._blend = torch.from_numpy(blend).to(mean)
        scores = part[:, self._read].flatten(1) @ self.scores
        rest = (scores @ self.effects).unflatten(1, (-1, 3))
        gap = part[:, self._border] - (scores @ self.at_border).unflatten(1, (-1, 3))
        bend = (self._blend @ gap.transpose(0, 1).flatten(1)).unflatten(1, (len(part), 3)).transpose(0, 1)
        return torch.cat([part, rest + bend], dim=1)[:, self._back]
