from itertools import pairwise

import numpy as np
import pytest

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.mesh_arrays import fan_triangles
from implicit3dmm.heads.cage import boundary_rings
from implicit3dmm.heads.cutting import CLOSEST, cut_polygons


def globe(rows: int = 12, columns: int = 16) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """A unit sphere of quads and polar triangles."""
    latitude = np.pi * np.arange(1, rows) / rows
    longitude = 2 * np.pi * np.arange(columns) / columns
    ring = np.stack([np.cos(longitude), np.zeros(columns), -np.sin(longitude)], axis=1)
    rings = np.sin(latitude)[:, None, None] * ring + np.cos(latitude)[:, None, None] * np.array([0, 1.0, 0])
    vertices = np.concatenate([[(0, 1.0, 0)], rings.reshape(-1, 3), [(0, -1.0, 0)]])
    grid, south = 1 + np.arange((rows - 1) * columns).reshape(rows - 1, columns), len(vertices) - 1
    faces = []
    for i in range(columns):
        j = (i + 1) % columns
        faces += [(0, int(grid[0, i]), int(grid[0, j])), (south, int(grid[-1, j]), int(grid[-1, i]))]
        faces += [tuple(map(int, (a[i], b[i], b[j], a[j]))) for a, b in pairwise(grid)]
    return vertices, faces


def as_mesh(vertices, polygons) -> Mesh:
    lengths = np.array([len(polygon) for polygon in polygons])
    return Mesh(vertices, fan_triangles(np.concatenate(polygons), lengths))


def test_the_globe_is_closed_and_looks_outwards():
    mesh = as_mesh(*globe())
    assert mesh.is_watertight()
    assert mesh.volume() > 0


def test_a_plane_leaves_the_part_above_it():
    vertices, faces = globe()
    normal = np.array([0.3, 1.0, -0.2])
    height = vertices @ normal - 0.1234
    cut = cut_polygons(faces, height)
    above = cut.extend(vertices)
    used = np.unique(np.concatenate(cut.polygons))
    assert (above[used] @ normal - 0.1234 > -0.05).all()
    assert set(used[used < len(vertices)]) == set(np.flatnonzero(height > 0)), "no vertex above it is lost"
    free = (cut.share > CLOSEST) & (cut.share < 1 - CLOSEST)
    np.testing.assert_allclose((above[len(vertices) :] @ normal - 0.1234)[free[:, 0]], 0, atol=1e-12)


def test_the_two_parts_make_up_the_whole():
    vertices, faces = globe()
    height = vertices[:, 1] - 0.05  # no vertex is near it, so that nothing is clipped
    upper, lower = cut_polygons(faces, height), cut_polygons(faces, -height)
    areas = [as_mesh(cut.extend(vertices), cut.polygons).face_areas().sum() for cut in (upper, lower)]
    assert sum(areas) == pytest.approx(as_mesh(vertices, faces).face_areas().sum())


def test_it_ends_in_one_ring():
    vertices, faces = globe()
    cut = cut_polygons(faces, vertices @ (0.2, 1.0, 0.1))
    (ring,) = boundary_rings(cut.polygons)
    assert sorted(ring) == list(range(len(vertices), len(vertices) + len(cut.above)))


def test_other_values_are_cut_alike():
    """A cut is linear: a blended head's cut is the blend of the cuts."""
    vertices, faces = globe()
    cut = cut_polygons(faces, vertices[:, 1] - 0.3)
    modes = np.random.default_rng(0).normal(size=(4, *vertices.shape)).astype(np.float32)
    weights = np.array([0.5, -1.0, 2.0, 0.1], dtype=np.float32)
    np.testing.assert_allclose(
        cut.extend(np.tensordot(weights, modes, 1)), np.tensordot(weights, cut.extend(modes), 1), atol=1e-6
    )
    assert cut.extend(modes).dtype == np.float32


def test_what_lies_above_stays_whole_and_what_lies_below_goes():
    vertices, faces = globe()
    whole = cut_polygons(faces, vertices[:, 1] + 2)
    assert whole.polygons == faces
    assert whole.extend(vertices).shape == vertices.shape
    assert cut_polygons(faces, vertices[:, 1] - 2).polygons == []
