"""The surface of a signed-distance field as a mesh, by marching cubes in a narrow band.

Almost all of a grid lies far from the surface, and a field that changes by at most `lipschitz` a unit of
length proves it: a box whose centre has |f| > lipschitz * half diagonal holds no surface. Halving boxes
from 32 cells to 2 and dropping these leaves 8 % of a 256^3 grid around a head to be evaluated; the marching
cubes then see exactly the values that they would see on the whole grid.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from skimage.measure import marching_cubes

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, unit_vectors
from implicit3dmm.geometry.narrow_band import Grid, GridField, ScalarField, fill_densely, fill_narrow_band

FAR_OUTSIDE = 1e30
"""Value around the grid; so large that the surface is closed exactly on the face of the box."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Extraction:
    """An extracted surface and how it came about.

    Attributes:
        mesh: the surface; its faces look outwards.
        evaluations: points at which the field was evaluated.
        dense_evaluations: points of the whole grid.
        lipschitz: the bound that boxes were dropped by; None for dense evaluation.
        steepest: the largest slope of the field seen between the centres of boxes and of their parts, 0
            for dense evaluation. Above `lipschitz` the bound is broken and pieces may be missing.
        components: number of connected pieces before the largest was chosen.
        touches_bounds: whether the inside reaches the box, so that the mesh was closed on its faces.
    """

    mesh: Mesh
    evaluations: int
    dense_evaluations: int
    lipschitz: float | None
    steepest: float
    components: int
    touches_bounds: bool

    @property
    def share(self) -> float:
        """Evaluations as a share of those of the whole grid."""
        return self.evaluations / self.dense_evaluations


def extract_surface(
    sdf: ScalarField,
    bounds: Float[np.ndarray, "2 3"],
    resolution: int,
    *,
    lipschitz: float = 1.5,
    band: Literal["narrow", "dense"] = "narrow",
    chunk: int = 65_536,
    level: float = 0.0,
    largest_component: bool = True,
) -> Mesh:
    """The surface of a field as a mesh: `extract` without the account of how it came about."""
    return extract(
        sdf,
        bounds,
        resolution,
        lipschitz=lipschitz,
        band=band,
        chunk=chunk,
        level=level,
        largest_component=largest_component,
    ).mesh


def extract(
    sdf: ScalarField,
    bounds: Float[np.ndarray, "2 3"],
    resolution: int,
    *,
    lipschitz: float = 1.5,
    band: Literal["narrow", "dense"] = "narrow",
    chunk: int = 65_536,
    level: float = 0.0,
    largest_component: bool = True,
) -> Extraction:
    """Extracts the level set of a field by marching cubes (Lewiner et al. 2003, as in scikit-image).

    The narrow band gives the same mesh as dense evaluation, vertex by vertex, wherever `lipschitz` bounds
    the field's slope. A true signed distance has slope 1. A learnt field does not: its gradient norm,
    trained towards 1 by the Eikonal term, exceeds it in places, and no bound holds at all for a piece that
    floats unconnected in space. Measure it with `estimate_lipschitz`, or as the largest gradient norm over
    points in the box, for some typical codes; take a margin; `Extraction.steepest` tells afterwards
    whether the bound was seen to be broken, which is also logged as a warning.

    Args:
        sdf: the field: float32 points (n, 3) to values (n,), negative inside, both NumPy.
        bounds: lowest and highest corner of the box. The grid starts at the lowest; cells being cubic, it
            may end up to one cell beyond the highest on the two shorter sides.
        resolution: number of cells along the longest side.
        lipschitz: largest slope that the field is trusted not to exceed, in units of the field a unit of
            length; larger is safer and slower (1.5 costs 1.4 times the evaluations of 1).
        band: "narrow", or "dense" to evaluate the whole grid.
        chunk: most points in one call of `sdf`.
        level: value of the surface.
        largest_component: keep only the connected piece with the largest area.

    Returns:
        The mesh and the record. The mesh is closed; where the inside reaches the box it is closed by the
        box's faces.

    Raises:
        InputError: the box or the resolution is not valid, the field has a value that is not finite, or it
            has no surface in the box.
    """
    grid = Grid.over(bounds, resolution)
    field = GridField(sdf, grid, chunk)
    # One layer of outside points around the grid closes what reaches the box.
    volume = np.full([n + 2 for n in grid.points], FAR_OUTSIDE, dtype=np.float32)
    if band == "dense":
        mask, steepest = None, 0.0
        fill_densely(field, volume)
    else:
        assert lipschitz > 0.0
        mask, steepest = fill_narrow_band(field, volume, level=level, lipschitz=lipschitz)
    if steepest > lipschitz:
        _log.warning("the field's slope reaches %.2f, above the bound %.2f", steepest, lipschitz)
    mesh = _march(volume, mask, grid, level)
    labels = mesh.face_components()
    return Extraction(
        mesh=mesh.largest_component() if largest_component and labels.max() > 0 else mesh,
        evaluations=field.evaluations,
        dense_evaluations=int(np.prod(grid.points)),
        lipschitz=None if band == "dense" else lipschitz,
        steepest=steepest,
        components=int(labels.max()) + 1,
        touches_bounds=_touches_bounds(volume[1:-1, 1:-1, 1:-1], level),
    )


def estimate_lipschitz(
    sdf: ScalarField,
    bounds: Float[np.ndarray, "2 3"],
    *,
    rng: np.random.Generator,
    count: int = 20_000,
    step: float = 1e-3,
) -> float:
    """The largest slope of a field seen at random points of a box.

    At each point the direction of the gradient is found by forward differences, and the slope is that of
    a short step in this direction. It is a lower bound of the true constant: take a margin (the default
    1.5 of `extract` suits fields whose estimate stays below 1.3).

    Args:
        sdf: the field.
        bounds: lowest and highest corner of the box.
        rng: source of the points.
        count: number of points; the field is evaluated five times at each.
        step: length of the steps; float32 values cost about 1e-7 / step of precision.
    """
    low, high = np.asarray(bounds, dtype=np.float64)
    points = (low + rng.random((count, 3)) * (high - low)).astype(np.float32)
    values = np.asarray(sdf(points), dtype=np.float64)
    steps = np.float32(step) * np.eye(3, dtype=np.float32)
    gradients = np.stack([np.asarray(sdf(points + axis), dtype=np.float64) - values for axis in steps], axis=1)
    moved = points + (step * unit_vectors(gradients)).astype(np.float32)
    lengths = np.linalg.norm(moved.astype(np.float64) - points, axis=1)
    climbs = np.abs(np.asarray(sdf(moved), dtype=np.float64) - values)
    return float((climbs / np.maximum(lengths, 0.5 * step)).max())


def _march(
    volume: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"] | None, grid: Grid, level: float
) -> Mesh:
    """Marching cubes on the padded volume, in the coordinates of the grid."""
    try:
        vertices, faces, _, _ = marching_cubes(volume, level, mask=mask)
    except (ValueError, RuntimeError):  # the level is out of range, or no cell is crossed
        raise InputError(
            f"the field shows no surface at {level:g} in the box, its lowest value is {volume.min():.3g}; a"
            " surface is expected there; move or enlarge the box, or check the codes"
        ) from None
    return Mesh(grid.positions(vertices.astype(np.float64) - 1.0), faces)


def _touches_bounds(values: Float32[np.ndarray, "x y z"], level: float) -> bool:
    """Whether any point on the faces of the grid is inside."""
    faces = (np.moveaxis(values, axis, 0)[side] for axis in range(3) for side in (0, -1))
    return any(bool((face <= level).any()) for face in faces)
