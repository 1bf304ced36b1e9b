import numpy as np
import pytest

from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import open_source
from implicit3dmm.heads.measurements import MEASUREMENTS, alare, glabella, measure_head, opisthocranion

ADULT_MM = {
    "head_breadth": (135, 165),
    "head_length": (175, 210),
    "head_circumference": (520, 600),
    "face_breadth": (120, 150),
    "face_height": (95, 130),
    "inner_eye_distance": (28, 40),
    "outer_eye_distance": (80, 100),
    "eye_distance": (55, 70),
    "nose_height": (42, 60),
    "nose_breadth": (28, 42),
    "nose_depth": (14, 24),
    "mouth_breadth": (44, 60),
}
"""What adults measure, about from the 1st to the 99th percentile."""


@pytest.fixture(scope="module")
def template():
    return open_source("makehuman").template


def values(vertices, template):
    return {name: measured.value for name, measured in measure_head(vertices, template).items()}


def test_the_average_adult_measures_what_adults_do(template):
    measured = values(template.vertices * 200, template)
    assert measured.keys() == MEASUREMENTS.keys() == ADULT_MM.keys()
    for name, (low, high) in ADULT_MM.items():
        assert low < measured[name] < high, name


def test_measurements_scale_with_the_head_and_do_not_depend_on_its_place(template):
    measured = values(template.vertices, template)
    moved = values(3 * template.vertices + [5.0, -7.0, 2.0], template)
    assert moved == pytest.approx({name: 3 * value for name, value in measured.items()})


def test_a_mirrored_head_measures_the_same(template):
    head = next(generate(Recipe(seed=5, train=1)))
    mirrored = (head.vertices * [-1, 1, 1])[template.mirror]
    # The tape crosses quads, whose two triangles do not mirror.
    assert values(mirrored, template) == pytest.approx(values(head.vertices, template), rel=1e-4)


def test_breadths_grow_with_a_broader_head_and_heights_do_not(template):
    broad, usual = values(template.vertices * [1.1, 1, 1], template), values(template.vertices, template)
    for name in ("head_breadth", "face_breadth", "inner_eye_distance", "nose_breadth", "mouth_breadth"):
        assert broad[name] == pytest.approx(1.1 * usual[name], rel=0.01), name
    for name in ("head_length", "face_height", "nose_height", "nose_depth"):
        assert broad[name] == pytest.approx(usual[name], rel=1e-6), name
    assert usual["head_circumference"] < broad["head_circumference"] < 1.1 * usual["head_circumference"]


def test_the_tape_around_a_ball_is_a_great_circle(template):
    """The head blown up to a ball about its middle: glabella and opisthocranion are then opposite each other."""
    middle = template.vertices[[glabella(template), opisthocranion(template.vertices, template)]].mean(0)
    rays = template.vertices - middle
    ball = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    assert values(ball, template)["head_circumference"] == pytest.approx(2 * np.pi, rel=0.01)
    assert values(ball, template)["head_length"] == pytest.approx(2, rel=0.01)


def test_points_lie_where_anatomy_has_them(template):
    front, back = glabella(template), opisthocranion(template.vertices, template)
    assert template.vertices[front, 2] > 0.4
    assert template.vertices[back, 2] < -0.35
    assert abs(template.vertices[[front, back], 0]).max() < 1e-6
    wing, tip, base = (template.vertices[i] for i in (alare(template), *template.landmarks[[30, 33]]))
    assert wing[0] > 0.06
    assert base[1] < wing[1] < tip[1]


def test_the_vertices_that_a_measurement_hangs_on_are_its_ends(template):
    measured = measure_head(template.vertices, template)
    for name in ("head_length", "face_height", "nose_breadth"):
        one, other = template.vertices[measured[name].vertices]
        assert np.linalg.norm(one - other) == pytest.approx(measured[name].value), name
    assert all(len(part.vertices) >= 2 for part in measured.values())
