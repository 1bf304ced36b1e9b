import numpy as np

from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.heads.closing import EYE_RADIUS, MOUTH_DEPTH, NECK_RINGS, Closing

MIRROR = np.array([-1.0, 1.0, 1.0])


def moved(open_head, how) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    skin, (left, right) = open_head
    return how(skin), (how(left), how(right))


def opened(arrays, open_head, weight: float) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The base mesh with its jaw lowered."""
    jaw = arrays["expr"][arrays["expr_names"].tolist().index("jawOpen")] * 1e-3
    return open_head[0] + weight * jaw[: int(arrays["n_skin"])], open_head[1]


def test_the_skin_stays(closing, open_head):
    np.testing.assert_array_equal(closing.apply(*open_head)[:, : closing.skin_count], open_head[0])


def test_it_moves_with_the_head(closing, open_head):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    similarity = Similarity(37.0, turn * np.sign(np.linalg.det(turn)), np.array([3.0, -200.0, 11.0]))
    np.testing.assert_allclose(
        closing.apply(*moved(open_head, similarity.apply)), similarity.apply(closing.apply(*open_head)), atol=1e-9
    )


def test_a_mirrored_head_is_closed_by_the_mirror_image(arrays, closing, open_head):
    mirror, count = arrays["mirror"].astype(int), closing.skin_count
    shifted = open_head[0] + 0.02 * np.random.default_rng(1).normal(size=open_head[0].shape)
    eyes = tuple(eye * 1.1 for eye in open_head[1])
    mirrored = closing.apply(shifted[:, mirror[:count]] * MIRROR, tuple(eye * MIRROR for eye in eyes[::-1]))
    np.testing.assert_allclose(mirrored, closing.apply(shifted, eyes)[:, mirror] * MIRROR, atol=1e-12)


def test_a_batch_is_its_members(arrays, closing, open_head):
    heads = [opened(arrays, open_head, weight) for weight in (0.0, 0.5, 1.0)]
    batch = closing.apply(
        np.concatenate([skin for skin, _ in heads]),
        tuple(np.concatenate([eyes[side] for _, eyes in heads]) for side in (0, 1)),
    )
    for head, closed in zip(heads, batch, strict=True):
        np.testing.assert_allclose(closing.apply(*head)[0], closed, atol=1e-12)


def test_the_eye_films_lie_on_the_eyeballs(closing, open_head):
    closed = closing.apply(*open_head)[0]
    for film, eyeball in zip(closing.eyes, open_head[1], strict=True):
        centre = eyeball[0].mean(0)
        radius = np.linalg.norm(eyeball[0] - centre, axis=1).mean()
        distance = np.linalg.norm(closed[film.inner] - centre, axis=-1)
        np.testing.assert_allclose(distance, EYE_RADIUS * radius, rtol=1e-9)


def test_the_mouth_film_recedes_as_the_mouth_opens(arrays, closing, open_head):
    for weight in (0.3, 1.0):
        skin, eyes = opened(arrays, open_head, weight)
        closed = closing.apply(skin, eyes)[0]
        upper, lower = closed[closing.mouth.upper], closed[closing.mouth.lower]
        middle = closed[closing.mouth.inner[:, 1]]
        height = np.linalg.norm(upper - lower, axis=1)
        recess = middle - (upper + lower) / 2
        np.testing.assert_allclose(np.linalg.norm(recess, axis=1), MOUTH_DEPTH * height / 2, rtol=1e-9)
        assert (recess @ (skin[0].mean(0) - middle.mean(0)) > 0).all()


def test_a_shut_mouth_has_a_flat_film(closing, open_head):
    skin = open_head[0].copy()
    skin[:, closing.mouth.lower] = skin[:, closing.mouth.upper]
    closed = closing.apply(skin, open_head[1])[0]
    np.testing.assert_allclose(closed[closing.mouth.inner], closed[closing.mouth.upper, None].repeat(3, 1), atol=1e-12)


def test_the_cap_is_the_neck_ring_shrunk_to_its_middle(closing, open_head):
    closed = closing.apply(*open_head)[0]
    loop, *rings, centre = closing.neck
    middle = closed[loop].mean(0)
    for ring, share in zip(rings, NECK_RINGS, strict=True):
        np.testing.assert_allclose(closed[ring] - middle, share * (closed[loop] - middle), atol=1e-12)
    np.testing.assert_allclose(closed[centre], middle)


def test_single_precision_stays(closing, open_head):
    skin, eyes = moved(open_head, lambda points: points.astype(np.float32))
    closed = closing.apply(skin, eyes)
    assert closed.dtype == np.float32
    np.testing.assert_allclose(closed, closing.apply(*open_head), atol=1e-5)


def test_its_arrays_are_what_it_reads(arrays, closing):
    written = closing.arrays()
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    again = Closing.from_arrays(written | {"mirror": arrays["mirror"]})
    assert again.vertex_count == closing.vertex_count
    np.testing.assert_array_equal(again.eyes[1].inner, closing.eyes[1].inner)
