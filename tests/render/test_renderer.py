import numpy as np
import pytest
import trimesh

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.render.camera import camera_from_view
from implicit3dmm.render.drawing import PAPER
from implicit3dmm.render.renderer import paint, render, visible_surface

FRONT = camera_from_view("front", np.array([[-1.0, -1, -1], [1, 1, 1]]))


def sphere(radius=1.0, centre=(0, 0, 0), subdivisions=4):
    ball = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(ball.vertices + centre, ball.faces)


def both(one, other):
    return Mesh(
        np.concatenate([one.vertices, other.vertices]),
        np.concatenate([one.faces, other.faces + len(one.vertices)]),
    )


def painted(mesh, *colors):
    counts = [len(mesh.vertices) // len(colors)] * len(colors)
    return np.repeat(np.array(colors, dtype=float), counts, axis=0)


def test_painted_data_facing_the_viewer_show_their_colour_unchanged():
    for color in ([0.2, 0.6, 0.9], [1, 1, 1], [0, 0, 0], [0.02, 0.5, 0.98]):
        picture = render(sphere(), camera=FRONT, size=(101, 101), vertex_colors=painted(sphere(), color))
        np.testing.assert_allclose(picture[50, 50], np.multiply(color, 255), atol=1)


def test_slopes_of_painted_data_are_darker_but_keep_their_hue():
    picture = render(sphere(), camera=FRONT, size=(101, 101), vertex_colors=painted(sphere(), [0.8, 0.4, 0.2]))
    slope = picture[50, 12].astype(float)
    assert (slope < 0.85 * picture[50, 50]).all()
    assert slope[0] > slope[1] > slope[2]


def test_the_nearer_of_two_meshes_is_seen_whatever_their_order():
    near, far = sphere(0.4, (0, 0, 0.5)), sphere(0.4, (0, 0, -0.5))
    red, blue = [1, 0, 0], [0, 0, 1]
    for mesh, colors in ((both(near, far), (red, blue)), (both(far, near), (blue, red))):
        picture = render(mesh, camera=FRONT, size=(61, 61), vertex_colors=painted(mesh, *colors))
        np.testing.assert_array_equal(picture[30, 30], [255, 0, 0])


def test_the_key_light_comes_from_the_upper_left():
    picture = render(sphere(), camera=FRONT, size=(101, 101)).astype(int)
    assert picture[30, 30].sum() > picture[50, 50].sum() > picture[75, 75].sum() + 60
    assert (picture[50, 50] > 120).all()


def test_creases_are_darker_than_open_surface():
    touching = both(sphere(0.5, (-0.45, 0, 0)), sphere(0.5, (0.45, 0, 0)))
    camera = camera_from_view("front", touching.bounds())
    alone = render(sphere(0.5, (-0.45, 0, 0)), camera=camera, size=(200, 200)).astype(int)
    crowded = render(touching, camera=camera, size=(200, 200)).astype(int)
    assert (crowded[100, 70:98].sum(axis=1) / alone[100, 70:98].sum(axis=1)).min() < 0.85
    np.testing.assert_array_equal(crowded[100, 30], alone[100, 30])  # far from the other sphere


def test_the_background_is_as_asked():
    assert tuple(render(sphere(), camera=FRONT, size=(40, 30))[0, 0]) == PAPER
    picture = render(sphere(), camera=FRONT, size=(40, 30), background=(10, 20, 30))
    assert picture.shape == (30, 40, 3)
    assert tuple(picture[0, 0]) == (10, 20, 30)


def test_a_transparent_picture_laid_on_the_background_is_the_opaque_one():
    clear = render(sphere(), camera=FRONT, size=(80, 80), background=None)
    assert clear.shape == (80, 80, 4)
    assert clear[0, 0, 3] == 0
    assert clear[40, 40, 3] == 255
    solid = render(sphere(), camera=FRONT, size=(80, 80))
    inner = clear[..., 3] == 255
    np.testing.assert_array_equal(clear[inner, :3], solid[inner])
    rim = (clear[..., 3] > 0) & ~inner
    assert rim.any()
    assert (clear[rim, :3] < 235).all()  # the surface's own colour, not mixed with a background


@pytest.mark.parametrize("antialias", [1, 2, 3])
def test_more_samples_soften_edges_only(antialias):
    fine = render(sphere(), camera=FRONT, size=(60, 60), antialias=6).astype(int)
    coarse = render(sphere(), camera=FRONT, size=(60, 60), antialias=antialias).astype(int)
    row, column = np.indices((60, 60)) - 29.5
    inner = np.hypot(row, column) < 45 / 2
    assert np.abs(fine - coarse)[inner].max() <= 6
    assert np.abs(fine - coarse).mean() < 3 / antialias


def test_equal_input_gives_equal_bytes():
    mesh = sphere()
    cloud = Mesh(mesh.vertices)
    for shape in (mesh, cloud):
        first, second = (render(shape, camera=FRONT, size=(120, 90)).tobytes() for _ in range(2))
        assert first == second


def test_one_look_serves_several_pictures():
    colors = painted(sphere(), [0.1, 0.7, 0.3])
    surface = visible_surface(sphere(), camera=FRONT, size=(50, 50))
    np.testing.assert_array_equal(paint(surface), render(sphere(), camera=FRONT, size=(50, 50)))
    np.testing.assert_array_equal(
        paint(surface, vertex_colors=colors),
        render(sphere(), camera=FRONT, size=(50, 50), vertex_colors=colors),
    )


def test_points_and_mesh_of_one_shape_look_alike():
    mesh = sphere(subdivisions=5)
    cloud = Mesh(mesh.vertices, None, mesh.vertices)
    pair = [render(shape, camera=FRONT, size=(100, 100)).astype(int) for shape in (mesh, cloud)]
    assert np.abs(pair[0] - pair[1]).mean() < 2.5


def test_the_back_of_a_surface_is_dull():
    mesh = sphere()
    turned = Mesh(mesh.vertices, mesh.faces[:, ::-1])
    outside, inside = (render(m, camera=FRONT, size=(41, 41))[20, 20].astype(int) for m in (mesh, turned))
    assert (inside < 0.8 * outside).all()
    assert np.ptp(inside) < np.ptp(outside)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 50)])
def test_tiny_pictures_are_made(size):
    for shape in (sphere(), Mesh(sphere().vertices)):
        assert render(shape, camera=FRONT, size=size).shape == (size[1], size[0], 3)


def test_colours_that_do_not_fit_the_vertices_are_refused():
    with pytest.raises(InputError, match=r"\(3, 3\)"):
        render(sphere(), camera=FRONT, size=(20, 20), vertex_colors=np.zeros((3, 3)))


def test_nothing_is_printed(capfd):
    render(sphere(), camera=FRONT, size=(20, 20))
    assert capfd.readouterr() == ("", "")
