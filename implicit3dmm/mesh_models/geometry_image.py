"""Geometry images: a patch of a mesh as a picture whose pixels are points of its surface.

Abrevaya, Boukhayma, Wuhrer and Boyer, "A Decoupled 3D Facial Shape Model by Adversarial Training", ICCV 2019, section
4.1, let a convolutional network judge a mesh this way; Gu, Gortler and Hoppe, SIGGRAPH 2002, named the pictures.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.parameterisation import Parameterisation

ROUNDING = 1e-6
"""How far outside a triangle a pixel still counts as in it, pixels; a vertex with less weight has no part in one."""
TINY = 1e-12
"""Added to the weights, so that they have a sum even in the very middle of a hole."""


class GeometryImage(nn.Module):
    """The mapping layer (equation 5): each pixel is a fixed mean of the three corners of the triangle that covers it.

    Pixels lie on a grid from border to border of the square, the outermost on the border of the patch; the first row
    is the upper one.
    """

    def __init__(self, parameterisation: Parameterisation, size: int):
        """Finds the triangle of each pixel; some hundredths of a second.

        Args:
            parameterisation: of the patch.
            size: pixels along a side.

        Raises:
            InputError: a triangle is flipped, or the image has fewer than two pixels along a side.
        """
        super().__init__()
        flips = parameterisation.flips()
        if flips:
            raise InputError(f"{flips} triangles are flipped on the square; give a map without flipped triangles")
        if size < 2:
            raise InputError(f"an image of {size} pixels a side was asked for; expected at least 2")
        self.size = size
        corners, weights = _cover(parameterisation, size)
        self.register_buffer("corners", torch.from_numpy(corners), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights), persistent=False)
        self.register_buffer("places", torch.from_numpy(parameterisation.places), persistent=False)

    def forward(self, values: Float[Tensor, "b v c"]) -> Float[Tensor, "b c s s"]:
        """Images of what is known at the vertices, such as their positions.

        Args:
            values: of the patch's vertices.
        """
        taken = values[:, self.corners]  # b, s * s, 3, c
        pixels = torch.einsum("bpkc,pk->bcp", taken, self.weights.to(values.dtype))
        return pixels.unflatten(-1, (self.size, self.size))

    def read(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b v c"]:
        """What the images hold where the vertices lie, between four pixels each (bilinear)."""
        at = (2 * self.places - 1) * self.places.new_tensor([1.0, -1.0])
        grid = at.to(images.dtype).expand(len(images), 1, -1, 2)
        return grid_sample(images, grid, align_corners=True)[:, :, 0].transpose(1, 2)

    def seen(self) -> Bool[Tensor, " v"]:
        """Which vertices have a part in any pixel; the others do not show in an image at all."""
        mask = torch.zeros(len(self.places), dtype=torch.bool, device=self.corners.device)
        mask[self.corners[self.weights > ROUNDING]] = True
        return mask

    def read_back_error(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b v"]:
        """How far from each vertex its place in the image lies, units of the vertices."""
        return (self.read(self(vertices)) - vertices).norm(dim=-1)


def _cover(parameterisation: Parameterisation, size: int) -> tuple[Int[np.ndarray, "p 3"], Float[np.ndarray, "p 3"]]:
    """Vertices and weights of every pixel, row by row from above.

    In a hole, what the vertex in its middle would have goes to the two vertices of the border that lie beside.
    """
    places = np.concatenate([parameterisation.places, parameterisation.fillings])
    triangle, column, row = _candidates(places[parameterisation.triangles] * (size - 1), size)
    corners = parameterisation.triangles[triangle]
    weights = _barycentric(np.stack([column, row], axis=1) / (size - 1), places[corners])
    # A pixel on an edge lies in two triangles or, by rounding, in none; it belongs where it lies deepest.
    by_depth = np.lexsort((weights.min(axis=1), column, -row))
    number = (row * size + column)[by_depth]
    chosen = by_depth[np.append(number[1:] != number[:-1], True)]
    assert len(chosen) == size * size, "the triangles do not cover the square"
    corners, weights = corners[chosen], weights[chosen]
    real = corners < len(parameterisation.places)
    weights = np.where(real, weights.clip(0) + TINY, 0)
    return np.where(real, corners, corners.min(axis=1, keepdims=True)), weights / weights.sum(axis=1, keepdims=True)


def _candidates(
    triangles: Float[np.ndarray, "t 3 2"], size: int
) -> tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Triangles, columns and rows of the pixels, counted from below, in the box around each triangle, in pixels."""
    low = np.ceil(triangles.min(axis=1) - ROUNDING).astype(np.int64).clip(0)
    wide, high = (np.floor(triangles.max(axis=1) + ROUNDING).astype(np.int64).clip(max=size - 1) - low + 1).clip(0).T
    counts = wide * high
    triangle = np.repeat(np.arange(len(triangles)), counts)
    number = np.arange(len(triangle)) - np.repeat(np.cumsum(counts) - counts, counts)
    return triangle, low[triangle, 0] + number % wide[triangle], low[triangle, 1] + number // wide[triangle]


def _barycentric(points: Float[np.ndarray, "n 2"], triangles: Float[np.ndarray, "n 3 2"]) -> Float[np.ndarray, "n 3"]:
    edges = (triangles[:, 1:] - triangles[:, :1]).transpose(0, 2, 1)
    rest = np.linalg.solve(edges, (points - triangles[:, 0])[..., None])[..., 0]
    return np.concatenate([1 - rest.sum(axis=1, keepdims=True), rest], axis=1)
