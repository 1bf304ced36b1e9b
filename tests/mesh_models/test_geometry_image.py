import numpy as np
import pytest
import torch

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.parameterisation import (
    Parameterisation,
    border_loops,
    disc_faces,
    square_parameterisation,
)
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import FACE_REGIONS
from implicit3dmm.mesh_models.geometry_image import GeometryImage


def sheet(n: int, *, holes: int = 0) -> Parameterisation:
    """The square as an uneven sheet of n x n vertices, with some holes."""
    number = np.arange(n * n).reshape(n, n)
    a, b, c, d = (v.ravel() for v in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    x, y = np.divmod(np.arange(n * n), n)
    places = np.stack([x, y], axis=1) / (n - 1)
    inner = (np.abs(places - 0.5).max(axis=1) < 0.49)[:, None]
    places = places + inner * np.random.default_rng(0).uniform(-0.2, 0.2, places.shape) / n
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    mesh = Mesh(np.column_stack([places, 8 * (places * (1 - places)).prod(axis=1)]), faces)
    removed = number[2, 2 : 2 + 3 * holes : 3]
    mesh = mesh.with_faces(~np.isin(mesh.faces, removed).any(axis=1))
    (middle,) = np.flatnonzero((mesh.vertices[:, :2] == [0.5, 1]).all(axis=1))
    return square_parameterisation(mesh, top=int(middle))


def grid(size: int) -> torch.Tensor:
    """(u, v) of the pixels, (2, s, s); the first row is the upper one."""
    along = torch.linspace(0, 1, size, dtype=torch.float64)
    return torch.stack(torch.meshgrid(along, along.flip(0), indexing="xy"))


@pytest.fixture(scope="module")
def patch(template) -> Mesh:
    return template.mesh.with_faces(disc_faces(template.mesh, template.in_regions(*FACE_REGIONS)))


@pytest.fixture(scope="module")
def face(patch) -> Parameterisation:
    (loop,) = border_loops(patch.faces)
    return square_parameterisation(patch, top=int(loop[patch.vertices[loop, 1].argmax()]))


@pytest.mark.parametrize("size", [2, 16, 33])
def test_pixels_show_the_points_that_they_lie_on(size):
    """The one function whose image is known everywhere: the place on the square itself."""
    mapped = sheet(9)
    image = GeometryImage(mapped, size)(torch.from_numpy(mapped.places)[None])
    np.testing.assert_allclose(image[0], grid(size), atol=1e-9)


def test_each_pixel_is_a_mean_of_the_corners_of_one_triangle():
    mapped = sheet(9)
    layer = GeometryImage(mapped, 20)
    triangles = {tuple(sorted(corners)) for corners in mapped.triangles.tolist()}
    assert {tuple(sorted(corners)) for corners in layer.corners.tolist()} <= triangles
    assert layer.weights.min() >= 0
    np.testing.assert_allclose(layer.weights.sum(1), 1)
    vertices = torch.rand(2, 81, 3, dtype=torch.float64)
    first, second, third = (vertices[:, layer.corners[:, k]] for k in range(3))
    u, v = layer.weights[:, 0, None], layer.weights[:, 1, None]
    equation_5 = u * first + v * second + (1 - u - v) * third
    np.testing.assert_allclose(layer(vertices).flatten(2), equation_5.transpose(1, 2))


def test_gradients_are_those_of_finite_differences():
    layer = GeometryImage(sheet(5), 7)
    vertices = torch.rand(2, 25, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, vertices)
    assert torch.autograd.gradcheck(lambda x: layer.read(layer(x)), vertices)


def test_what_is_linear_on_the_square_is_read_back_exactly():
    mapped = sheet(9)
    layer = GeometryImage(mapped, 12)
    values = torch.from_numpy(mapped.places @ np.array([[1.0, 2, 3], [-2, 5, 7]]))[None]
    assert layer.read_back_error(values).max() < 1e-9


def test_holes_are_filled_with_what_is_around_them():
    mapped = sheet(11, holes=2)
    layer = GeometryImage(mapped, 40)
    assert int(layer.corners.max()) < len(mapped.places)
    np.testing.assert_allclose(layer.weights.sum(1), 1)
    image = layer(torch.from_numpy(mapped.places)[None])[0]
    wrong = (image - grid(40)).abs().amax(0) > 1e-9
    assert 0 < wrong.float().mean() < 0.1
    pixels, shown = grid(40)[:, wrong].T.numpy(), image[:, wrong].T.numpy()
    middle = mapped.fillings[np.linalg.norm(pixels[:, None] - mapped.fillings, axis=-1).argmin(axis=1)]
    # Seen from the middle of its hole, a pixel shows the point of the border that it lies before.
    (x, y), (u, v) = (pixels - middle).T, (shown - middle).T
    np.testing.assert_allclose(x * v, y * u, atol=1e-9)
    assert (np.hypot(u, v) > np.hypot(x, y)).all()


def test_vertices_between_pixels_are_not_seen():
    mapped = sheet(9)
    assert GeometryImage(mapped, 2).seen().sum() == 4
    layer = GeometryImage(mapped, 12)
    vertices = torch.rand(1, 81, 3, requires_grad=True)
    layer(vertices).sum().backward()
    np.testing.assert_array_equal(vertices.grad[0].abs().sum(-1) > 1e-6, layer.seen())


class TestFace:
    """The face of the built-in heads."""

    def test_no_triangle_is_flipped(self, patch, face):
        assert (len(patch.vertices), len(patch.faces)) == (8320, 16526)
        assert patch.euler_number() == 1
        assert face.flips() == 0

    def test_left_and_right_are_alike(self, template, patch, face):
        places = {tuple(vertex): place for vertex, place in zip(patch.vertices.round(6), face.places, strict=True)}
        mirrored = template.vertices[template.mirror]
        pairs = [
            (places[tuple(vertex)], places[tuple(other)])
            for vertex, other in zip(template.vertices.round(6), mirrored.round(6), strict=True)
            if tuple(vertex) in places and tuple(other) in places
        ]
        here, there = np.array(pairs).transpose(1, 0, 2)
        assert len(here) > 8000
        np.testing.assert_allclose(here * (-1, 1) + (1, 0), there, atol=1e-3)

    @pytest.mark.parametrize(("size", "mean_mm", "most_mm", "seen"), [(64, 0.2, 2.0, 0.69), (128, 0.08, 1.0, 0.96)])
    def test_vertices_are_read_back_from_the_image(self, patch, face, size, mean_mm, most_mm, seen):
        layer = GeometryImage(face, size)
        error = layer.read_back_error(torch.from_numpy(patch.vertices)[None]) * UNIT_MM
        assert error.mean() < mean_mm
        assert error.max() < most_mm
        assert layer.seen().float().mean() > seen


def test_flipped_triangles_and_images_without_pixels_are_refused():
    mapped = sheet(9)
    with pytest.raises(InputError, match="an image of 1 pixels a side"):
        GeometryImage(mapped, 1)
    mapped.places[40] = mapped.places[10]
    with pytest.raises(InputError, match="triangles are flipped on the square"):
        GeometryImage(mapped, 8)
