"""What a picture sees: for each of its samples, the piece of surface that is nearest to the viewer."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Fragments:
    """The visible surface under m samples of a picture; the samples without surface are left out.

    Both ways of finding it, rays against triangles and discs for points, end here; colours come later, so
    that one look at a shape serves several pictures of it.

    Attributes:
        size: width and height of the picture, pixels.
        antialias: samples along each side of a pixel.
        pitch: width of a pixel, scene units.
        column, row: (m,) the sample's place on the grid of size * antialias samples, from the upper left.
        vertices: (m, k) the vertices whose values mix at the sample: 3 of a triangle, 1 of a point cloud.
        weights: (m, k) their shares, adding up to 1.
        normals: (m, 3) unit normals in the camera's frame, turned to the viewer.
        depth: (m,) view depth, larger for nearer samples.
        inside: (m,) whether the viewer looks at the back of the surface.
    """

    size: tuple[int, int]
    antialias: int
    pitch: float
    column: Int[np.ndarray, " m"]
    row: Int[np.ndarray, " m"]
    vertices: Int[np.ndarray, "m k"]
    weights: Float[np.ndarray, "m k"]
    normals: Float[np.ndarray, "m 3"]
    depth: Float[np.ndarray, " m"]
    inside: Bool[np.ndarray, " m"]

    def interpolate(self, values: Float[np.ndarray, "v c"]) -> Float[np.ndarray, "m c"]:
        """Vertex values at the samples."""
        return mix(values, self.vertices, self.weights)

    def pixel(self) -> Int[np.ndarray, " m"]:
        """Flat index, row by row, of the pixel that each sample lies in."""
        return (self.row // self.antialias) * self.size[0] + self.column // self.antialias

    def pixel_means(self, values: Float[np.ndarray, "m c"]) -> Float[np.ndarray, "h w c"]:
        """Mean over each pixel's samples; those without surface count as zero."""
        width, height = self.size
        pixel = self.pixel()
        sums = [np.bincount(pixel, weights=channel, minlength=width * height) for channel in values.T]
        means = np.stack(sums, axis=-1).reshape(height, width, -1) / self.antialias**2
        return means.astype(np.float32)


def mix(
    values: Float[np.ndarray, "v c"], vertices: Int[np.ndarray, "m k"], weights: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "m c"]:
    """Weighted sums of k vertex values for each of m samples."""
    sums = values[vertices[:, 0]] * weights[:, :1]
    for k in range(1, vertices.shape[1]):
        sums += values[vertices[:, k]] * weights[:, k : k + 1]
    return sums
