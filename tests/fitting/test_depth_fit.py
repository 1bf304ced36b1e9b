"""A depth camera's picture of a head, with a wall behind it, becomes the head."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from implicit3dmm.data.average_head import template
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.errors import InputError
from implicit3dmm.fitting import FitConfig, fit
from implicit3dmm.geometry.depth_images import DepthImage, Intrinsics
from implicit3dmm.geometry.distance import distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.template import FACE_REGIONS
from implicit3dmm.models import load_model
from implicit3dmm.render.camera import Camera
from implicit3dmm.render.raytrace import trace_mesh

SIZE = (320, 240)
DISTANCE_MM, WALL_MM, NOISE_MM = 600.0, 350.0, 1.0


@pytest.fixture(scope="module")
def seen():
    """A depth image of a held-out head, turned aside by 15 degrees, and the head in the camera's frame, mm."""
    head = next(generate(Recipe(seed=2026, train=1000, validation=16), [1000]))
    mesh = Mesh(head.similarity.inverse().apply(head.vertices), template().skin.faces)
    axes = Rotation.from_euler("y", 15, degrees=True).as_matrix()
    camera = Camera(mesh.bounds().mean(0), axes, (170 * SIZE[0] / SIZE[1], 170), DISTANCE_MM)
    corners = np.array([[-900.0, -900, -WALL_MM], [900, -900, -WALL_MM], [900, 900, -WALL_MM], [-900, 900, -WALL_MM]])
    count = len(mesh.vertices)
    vertices = np.concatenate([mesh.vertices, camera.target + corners @ axes])
    scene = Mesh(vertices, np.concatenate([mesh.faces, [[count, count + 1, count + 2], [count, count + 2, count + 3]]]))
    hits = trace_mesh(scene, camera, size=SIZE, antialias=1)
    depth = np.zeros(SIZE[::-1])
    depth[hits.row, hits.column] = DISTANCE_MM - hits.depth
    focal = DISTANCE_MM / camera.pixel_pitch(SIZE)
    truth = Mesh(camera.to_view(mesh.vertices) * [1, -1, -1] + [0, 0, DISTANCE_MM], mesh.faces)
    return as_measured(depth), Intrinsics(focal, focal, SIZE[0] / 2 - 0.5, SIZE[1] / 2 - 0.5), truth


def as_measured(depth: np.ndarray) -> np.ndarray:
    """With pixels mixed at edges, noise, lost pixels and whole millimetres."""
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(np.abs(np.diff(depth, axis=1)) > 30)
    depth[rows, columns] = (depth[rows, columns] + depth[rows, columns + 1]) / 2
    noisy = np.round(depth + rng.normal(0, NOISE_MM, depth.shape))
    return np.where(rng.random(depth.shape) < 0.02, 0, noisy)


@pytest.fixture(scope="module")
def model():
    return load_model("imhead-neutral")


@pytest.fixture(scope="module")
def fitted(model, seen):
    depth, intrinsics, _ = seen
    return fit(DepthImage(depth, intrinsics), model, config=FitConfig(points=4000), resolution=96)


def test_what_was_seen_is_within_half_a_millimetre_and_the_face_within_two(fitted, seen):
    truth = seen[2]
    off = distance_to_surface(fitted.mesh.vertices, truth).distance
    assert off[fitted.evidence_mm < 4].mean() < 0.5
    face = truth.vertices[template().in_regions(*FACE_REGIONS)]
    assert distance_to_surface(face, fitted.mesh).distance.mean() < 2
    marks = np.linalg.norm(fitted.landmarks - truth.vertices[template().landmarks], axis=1)
    assert marks.mean() < 3


def test_the_unit_is_known_and_the_side_that_was_not_seen_has_little_confidence(fitted):
    assert fitted.is_head
    assert (fitted.report["alignment"]["unit"], fitted.report["alignment"]["mm_per_unit"]) == ("mm", 1)
    behind = fitted.similarity.apply(fitted.mesh.vertices)[:, 2] < -0.2
    assert fitted.confidence[behind].max() < 0.2
    assert 0.2 < fitted.report["evidence"]["within@5mm"] < 0.6


def test_a_file_is_fitted_as_its_image_is_and_named_in_the_report(model, fitted, seen, tmp_path):
    depth, intrinsics, _ = seen
    path = tmp_path / "depth.npz"
    np.savez(path, depth=depth.astype(np.uint16), intrinsics=np.array(intrinsics))
    config = FitConfig(points=4000, steps=1)
    result = fit(path, model, config=config, resolution=40, transform=fitted.similarity)
    assert result.report["scan"]["file"] == str(path)
    np.testing.assert_allclose(result.scan.vertices, fitted.scan.vertices, rtol=1e-12)


def test_a_depth_image_has_its_unit_and_needs_its_camera(model, seen, tmp_path):
    depth, intrinsics, _ = seen
    with pytest.raises(InputError, match="the unit 'cm' is given with a depth image"):
        fit(DepthImage(depth, intrinsics), model, unit="cm")
    Image.fromarray(depth.astype(np.uint16)).save(tmp_path / "depth.png")
    with pytest.raises(InputError, match="a depth image without its camera; add --intrinsics"):
        fit(tmp_path / "depth.png", model)
