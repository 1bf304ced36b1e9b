import numpy as np
import pytest
import trimesh

from implicit3dmm.data.average_head import template
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.fitting.registration import register_head, register_template
from implicit3dmm.geometry.distance import distance_to_surface, signed_distance
from implicit3dmm.geometry.isosurface import extract_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.measurements import measure_head

MM = 200.0
BOUNDS = np.array([[-0.6, -0.95, -0.6], [0.6, 0.9, 0.8]])


@pytest.fixture(scope="module")
def head():
    """A head that the components were not made from."""
    return next(generate(Recipe(seed=2026, train=1000, validation=16), [1003]))


@pytest.fixture(scope="module")
def surface(head):
    """Its level set, whose vertices say nothing of the head's."""
    exact = Mesh(head.vertices, template().triangles)
    sdf = lambda points: signed_distance(points.astype(np.float64), exact).distance.astype(np.float32)  # noqa: E731
    return extract_surface(sdf, BOUNDS, 128, lipschitz=1.1)


@pytest.fixture(scope="module")
def registration(surface):
    return register_template(surface)


def test_landmarks_are_found_on_a_level_set_within_a_millimetre_or_two(registration, head):
    landmarks = template().landmarks
    off = np.linalg.norm(registration.vertices[landmarks] - head.vertices[landmarks], axis=1) * MM
    before = np.linalg.norm(template().vertices[landmarks] - head.vertices[landmarks], axis=1) * MM
    assert off.mean() < 1.2
    assert off.mean() < 0.4 * before.mean()


def test_the_template_lies_on_the_surface(registration, surface):
    assert distance_to_surface(registration.vertices, surface).distance.max() < 1e-9


def test_measurements_of_the_registered_template_are_those_of_the_head(registration, head):
    found, true = (measure_head(vertices, template()) for vertices in (registration.vertices, head.vertices))
    for name, measured in true.items():
        # The corners of the eyes lie in folds that a coarse level set closes.
        assert abs(found[name].value - measured.value) * MM < (4 if "eye" in name else 2), name


def test_coefficients_are_about_normal_for_a_head_and_large_for_a_ball(registration):
    assert 0.5 < np.sqrt(np.mean(registration.coefficients**2)) < 1.5
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    strange = register_template(Mesh(ball.vertices, ball.faces)).coefficients
    assert np.sqrt(np.mean(strange**2)) > 2


def test_the_average_head_is_found_at_once():
    registration = register_template(template().mesh)
    skin = ~template().in_regions("neck")
    off = np.linalg.norm(registration.vertices - template().vertices, axis=1)[skin] * MM
    assert off.mean() < 0.6
    assert np.abs(registration.coefficients).mean() < 0.6


def test_a_template_of_the_models_own_says_where_each_vertex_belongs(head):
    exact = Mesh(head.vertices, template().triangles)
    by_shape = register_head(exact, head.vertices).vertices
    known = register_head(exact, head.vertices, template().vertices).vertices
    # Where the average head folds onto itself, at the lids and in the mouth, a place belongs to two sheets.
    off = np.linalg.norm(known - head.vertices, axis=1) * MM
    assert np.quantile(off, 0.99) < 1e-3
    assert np.quantile(np.linalg.norm(by_shape - head.vertices, axis=1) * MM, 0.5) > 0.1
