import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.parameterisation import border_loops, disc_faces, square_parameterisation

N = 9
NUMBER = np.arange(N * N).reshape(N, N)
TOP = int(NUMBER[N // 2, -1])


def sheet() -> Mesh:
    """The unit square from above, cut into even triangles that look up; vertex NUMBER[i, j] lies at (i, j)."""
    a, b, c, d = (v.ravel() for v in (NUMBER[:-1, :-1], NUMBER[1:, :-1], NUMBER[1:, 1:], NUMBER[:-1, 1:]))
    x, y = np.divmod(np.arange(N * N), N)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(np.stack([x, y, 0 * x], axis=1) / (N - 1), faces)


def hill(seed: int = 0) -> Mesh:
    """The sheet with a steep hill in the middle and uneven triangles."""
    flat = sheet()
    rng = np.random.default_rng(seed)
    inner = (np.abs(flat.vertices[:, :2] - 0.5).max(axis=1) < 0.49)[:, None]
    places = flat.vertices[:, :2] + inner * rng.uniform(-0.04, 0.04, (N * N, 2))
    height = np.exp(-np.square(places - 0.5).sum(axis=1) / 0.02)
    return Mesh(np.column_stack([places, height]), flat.faces)


def without(mesh: Mesh, *vertices: int) -> Mesh:
    """The mesh without the faces around some vertices."""
    return mesh.with_faces(~np.isin(mesh.faces, vertices).any(axis=1))


def flat(*faces: tuple[int, int, int]) -> Mesh:
    """A mesh of some faces, wherever its vertices lie."""
    return Mesh(np.eye(np.max(faces) + 1, 3), np.array(faces))


TETRAHEDRON = flat((0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 3, 2))


def spread(values: np.ndarray) -> float:
    return float(np.log(values).std())


def test_a_flat_square_stays_as_it_is():
    mapped = square_parameterisation(sheet(), top=TOP)
    np.testing.assert_allclose(mapped.places, sheet().vertices[:, :2], atol=1e-12)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_triangle_is_flipped_and_all_of_them_fill_the_square(balance, seed):
    mapped = square_parameterisation(hill(seed), top=TOP, balance=balance)
    assert mapped.flips() == 0
    assert mapped.areas().min() > 0
    assert mapped.areas().sum() == pytest.approx(1)


def test_the_border_lies_on_that_of_the_square_and_nothing_else_does():
    mesh = hill()
    mapped = square_parameterisation(mesh, top=TOP)
    (loop,) = border_loops(mesh.faces)
    on_border = np.isclose(np.abs(mapped.places - 0.5).max(axis=1), 0.5)
    np.testing.assert_array_equal(np.flatnonzero(on_border), np.sort(loop))
    np.testing.assert_allclose(mapped.places[TOP], [0.5, 1.0])


def test_a_map_that_is_flipped_is_counted():
    mapped = square_parameterisation(hill(), top=TOP)
    middle = NUMBER[N // 2, N // 2]
    mapped.places[middle] = mapped.places[NUMBER[1, 1]]
    assert 0 < mapped.flips() <= 6
    assert mapped.flips() == (mapped.areas() <= 0).sum()


def test_the_balance_says_what_is_even():
    mesh = hill()
    same, natural = (square_parameterisation(mesh, top=TOP, balance=balance).areas() for balance in (0.0, 1.0))
    assert spread(same) < spread(natural)
    assert spread(natural / mesh.face_areas()) < 0.8 * spread(same / mesh.face_areas())


def test_a_mirrored_patch_has_a_mirrored_map():
    mesh = hill()
    swapped = np.arange(N * N).reshape(N, N)[::-1].ravel()
    mirrored = Mesh(mesh.vertices[swapped] * (-1, 1, 1), swapped[mesh.faces][:, ::-1])
    there, back = square_parameterisation(mesh, top=TOP), square_parameterisation(mirrored, top=TOP)
    np.testing.assert_allclose(back.places[swapped] * (-1, 1) + (1, 0), there.places, atol=1e-9)


def test_a_hole_is_filled_from_its_middle():
    mesh = without(hill(), NUMBER[3, 3], NUMBER[5, 6])
    loops = border_loops(mesh.faces)
    assert sorted(map(len, loops)) == [6, 6, 4 * (N - 1)]
    top = int(np.flatnonzero((mesh.vertices[:, :2] == sheet().vertices[TOP, :2]).all(axis=1))[0])
    mapped = square_parameterisation(mesh, top=top)
    assert len(mapped.fillings) == 2
    assert len(mapped.places) == len(mesh.vertices)
    assert len(mapped.triangles) == len(mesh.faces) + 12
    assert mapped.flips() == 0
    assert mapped.areas().sum() == pytest.approx(1)


def test_borders_run_the_way_their_faces_do():
    (loop,) = border_loops(sheet().faces)
    x, y = sheet().vertices[loop, :2].T
    assert 0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() == pytest.approx(1)
    assert border_loops(TETRAHEDRON.faces) == []


class TestDiscFaces:
    def test_the_largest_piece_is_taken(self):
        inside = np.ones((N, N), bool)
        inside[3] = False
        keep = disc_faces(sheet(), inside.ravel())
        ears = NUMBER[4, -1], NUMBER[-1, 0]
        np.testing.assert_array_equal(np.unique(sheet().faces[keep]), np.setdiff1d(NUMBER[4:], ears))

    def test_what_hangs_on_by_one_edge_of_the_border_is_cut_off(self):
        """In the even sheet two corners are ears: triangles with a vertex that has no other."""
        keep = disc_faces(sheet(), np.ones(N * N, bool))
        assert keep.sum() == len(sheet().faces) - 2
        assert square_parameterisation(sheet().with_faces(keep), top=TOP - 1).flips() == 0

    def test_nothing_inside_is_refused(self):
        with pytest.raises(InputError, match="no triangle has all its vertices among those chosen"):
            disc_faces(sheet(), np.zeros(N * N, bool))


@pytest.mark.parametrize(
    ("mesh", "top", "message"),
    [
        (sheet(), NUMBER[4, 4], f"vertex {NUMBER[4, 4]} is not on the outer border"),
        (TETRAHEDRON, 0, "the mesh has no border"),
        (
            Mesh(np.concatenate([sheet().vertices] * 2), np.concatenate([sheet().faces, sheet().faces + N * N])),
            TOP,
            "one",
        ),
        (flat((0, 1, 2), (0, 3, 4)), 0, "meets itself in a vertex"),
        (flat((0, 1, 2)), 0, "too coarse for four sides"),
    ],
)
def test_what_is_no_disc_is_refused(mesh, top, message):
    with pytest.raises(InputError, match=message):
        square_parameterisation(mesh, top=int(top))


def test_triangles_that_would_lie_flat_on_a_side_are_refused():
    """An ear in the middle of a side: its three vertices all lie on the border, on one side of the square."""
    mesh = sheet()
    ear = np.array([[NUMBER[1, -1], NUMBER[2, -1], N * N]])
    with_ear = Mesh(np.concatenate([mesh.vertices, [[1.5 / 8, 1.1, 0]]]), np.concatenate([mesh.faces, ear]))
    with pytest.raises(InputError, match="take the faces of disc_faces"):
        square_parameterisation(with_ear, top=TOP)
    keep = disc_faces(with_ear, np.ones(N * N + 1, bool))
    assert not keep[-1]
