import numpy as np
import pytest
import trimesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.spirals import spirals


@pytest.fixture(scope="module")
def ball() -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=3)
    return Mesh(np.asarray(sphere.vertices), np.asarray(sphere.faces))


@pytest.fixture(scope="module")
def steps(ball) -> np.ndarray:
    """Edges between every two vertices."""
    return distances(ball)


def distances(mesh: Mesh) -> np.ndarray:
    sides = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    count = len(mesh.vertices)
    return shortest_path(coo_array((np.ones(len(sides)), sides.T), (count, count)), directed=False, unweighted=True)


def corners(mesh: Mesh) -> set[tuple[int, int, int]]:
    """Every triangle from each of its vertices."""
    return {tuple(np.roll(face, turn).tolist()) for face in mesh.faces for turn in range(3)}


def grid(n: int = 8) -> Mesh:
    x, y = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    number = np.arange(n * n).reshape(n, n)
    a, b, c, d = (v.ravel() for v in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], axis=1), faces)


def test_the_first_ring_is_visited_counter_clockwise_and_whole(ball, steps):
    faces = corners(ball)
    for vertex, spiral in enumerate(spirals(ball, 9)):
        ring = spiral[1 : 1 + int((steps[vertex] == 1).sum())]
        assert spiral[0] == vertex
        assert all((vertex, a, b) in faces for a, b in zip(ring, np.roll(ring, -1), strict=True))


def test_the_second_ring_follows_the_first_in_the_same_turn(ball, steps):
    normals = ball.vertices
    for vertex, spiral in enumerate(spirals(ball, 19)):
        assert len(set(spiral)) == 19
        assert (np.diff(steps[vertex, spiral]) >= 0).all()
        second = spiral[steps[vertex, spiral] == 2]
        assert (steps[second, np.roll(second, -1)][:-1] == 1).all()
        arms = ball.vertices[second] - ball.vertices[vertex]
        assert (np.cross(arms[:-1], arms[1:]) @ normals[vertex] > 0).all()


def test_the_first_neighbour_is_the_one_that_lies_most_upwards(ball, steps):
    table = spirals(ball, 2)
    for vertex in range(len(table)):
        near = np.flatnonzero(steps[vertex] == 1)
        ways = ball.vertices[near] - ball.vertices[vertex]
        rise = ways[:, 1] / np.linalg.norm(ways, axis=1)
        assert rise[near == table[vertex, 1]] == pytest.approx(rise.max())


def test_spirals_of_a_regular_grid_are_copies_of_each_other():
    mesh = grid()
    inner = ((mesh.vertices[:, :2] > 1) & (mesh.vertices[:, :2] < 6)).all(1)
    moves = (spirals(mesh, 9) - np.arange(64)[:, None])[inner]
    assert (moves == moves[0]).all()


def test_at_a_boundary_every_neighbour_is_visited_once():
    mesh = grid(5)
    mesh = Mesh(mesh.vertices, np.random.default_rng(0).permutation(mesh.faces))
    steps, faces = distances(mesh), corners(mesh)
    for vertex, spiral in enumerate(spirals(mesh, 12)):
        assert len(set(spiral)) == 12
        assert (np.diff(steps[vertex, spiral]) >= 0).all()
        ring = spiral[steps[vertex, spiral] == 1]
        turns = sum((vertex, a, b) in faces for a, b in zip(ring, np.roll(ring, -1), strict=True))
        assert turns == (mesh.faces == vertex).sum()  # in turn, but for the one step across the gap


def test_a_piece_that_is_too_small_fills_its_spirals_with_the_vertex_itself(ball):
    tetrahedron = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    corners = np.array([[9.0, 0, 0], [10, 0, 0], [9, 1, 0], [9, 0, 1]])
    both = Mesh(np.concatenate([corners, ball.vertices]), np.concatenate([tetrahedron[:, ::-1], ball.faces + 4]))
    table = spirals(both, 9)
    for vertex in range(4):
        assert set(table[vertex, :4]) == {0, 1, 2, 3}
        assert (table[vertex, 4:] == vertex).all()
    np.testing.assert_array_equal(table[4:], spirals(ball, 9) + 4)
