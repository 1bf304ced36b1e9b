import numpy as np
import pytest

from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import expression_weights, subject_similarity
from implicit3dmm.data.sources.makehuman import EXPRESSIONS, JAW_RADIANS
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import ANCHORS

# Mean standard deviation of a vertex over adults, mm, after rigid alignment; on 400 light-stage scans it is
# nose 3.8, mouth 5.0, eyes 3.5, cheeks 4.6, chin 7.1, forehead 4.0, ears 6.4, cranium 6.6.
ADULT_SPREAD = {
    ("nose",): 4.0,
    ("mouth",): 4.8,
    ("eye_L", "eye_R"): 3.3,
    ("cheek_L", "cheek_R"): 4.0,
    ("chin",): 6.4,
    ("forehead",): 3.8,
    ("ear_L", "ear_R"): 6.2,
    ("cranium",): 7.7,
}


@pytest.fixture(scope="module")
def people(makehuman) -> list:
    rng = np.random.default_rng(0)
    return [makehuman.sample_subject(rng) for _ in range(200)]


@pytest.fixture(scope="module")
def person(people) -> np.ndarray:
    """Coefficients (1, c) of one subject."""
    return people[0].coefficients[None]


def units(makehuman, **weights: float) -> np.ndarray:
    row = np.zeros((1, len(makehuman.unit_names)), np.float32)
    for name, weight in weights.items():
        row[0, list(makehuman.unit_names).index(name)] = weight
    return row


def test_the_average_adult_is_the_template(makehuman, template):
    average = makehuman.vertices(makehuman._identity.average_adult()[None])[0].astype(np.float64)
    similarity = subject_similarity(makehuman, average)
    assert 1 / similarity.scale == pytest.approx(UNIT_MM, rel=1e-5)
    np.testing.assert_allclose(similarity.apply(average), template.vertices, atol=1e-5)


def test_identities_blend_linearly(makehuman, people):
    a, b = (person.coefficients for person in people[:2])
    neutral = makehuman.vertices(np.stack([a, b, 0.25 * a + 0.75 * b]))
    skin = makehuman.template.in_regions("nose", "chin", "forehead", "ear_L", "cranium")  # films are not linear
    np.testing.assert_allclose(0.25 * neutral[0, skin] + 0.75 * neutral[1, skin], neutral[2, skin], atol=2e-3)


def test_no_units_and_units_of_zero_are_neutral(makehuman, person):
    np.testing.assert_allclose(makehuman.vertices(person), makehuman.vertices(person, units(makehuman)), atol=1e-3)


def test_a_batch_is_its_members(makehuman, people):
    coefficients = np.stack([person.coefficients for person in people[:3]])
    weights = np.random.default_rng(1).uniform(0, 0.5, (3, len(makehuman.unit_names))).astype(np.float32)
    together = makehuman.vertices(coefficients, weights)
    for i in range(3):
        alone = makehuman.vertices(coefficients[i : i + 1], weights[i : i + 1])[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-3)


def test_people_are_seeded_and_differ(makehuman):
    drawn = [makehuman.sample_subject(np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(drawn[0].coefficients, drawn[1].coefficients)
    assert drawn[0].about == drawn[1].about
    assert np.abs(drawn[0].coefficients - drawn[2].coefficients).max() > 0.1


def test_the_population_has_the_ages_and_sexes_it_should(people):
    years = np.array([person.about["years"] for person in people])
    share = np.histogram(years, bins=(3, 12, 20, 45, 65, 85.1))[0] / len(years)
    np.testing.assert_allclose(share, (0.15, 0.10, 0.60, 0.12, 0.03), atol=0.1)
    women = np.mean([person.about["sex"] == "female" for person in people])
    assert 0.4 < women < 0.6
    for person in people:
        ancestry = [person.about[name] for name in ("african", "asian", "caucasian")]
        assert sum(ancestry) == pytest.approx(1, abs=2e-3)


def test_adults_vary_as_much_as_real_ones(makehuman, template, people):
    adults = np.stack([person.coefficients for person in people if person.about["years"] >= 20])
    heads = makehuman.vertices(adults).astype(np.float64)
    above = ~template.in_regions("neck")
    average = template.vertices * UNIT_MM
    aligned = [fit_similarity(head[above], average[above], with_scale=False).apply(head) for head in heads]
    spread = np.sqrt(np.var(aligned, axis=0).sum(-1))
    for regions, expected in ADULT_SPREAD.items():
        assert spread[template.in_regions(*regions)].mean() == pytest.approx(expected, rel=0.2), regions


def test_head_sizes_vary_as_real_ones_do(makehuman, people):
    adults = np.stack([person.coefficients for person in people if person.about["years"] >= 20])
    sizes = np.array(
        [1 / subject_similarity(makehuman, h.astype(np.float64)).scale for h in makehuman.vertices(adults)]
    )
    assert sizes.mean() == pytest.approx(UNIT_MM, rel=0.02)
    assert 0.035 < sizes.std() / sizes.mean() < 0.06


def test_all_heads_lie_in_the_unit_ball():
    expressions = ("neutral", "mouth_open")
    radius = [
        np.linalg.norm(head.vertices, axis=1).max()
        for head in generate(Recipe(seed=1, train=100, expressions=expressions))
    ]
    assert len(radius) == 200
    assert max(radius) < 0.95


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_gives_a_sound_head(makehuman, template, person, name):
    neutral = makehuman.vertices(person)[0]
    weights = expression_weights(makehuman, name, np.random.default_rng(0))
    head = makehuman.vertices(person, weights[None])[0]
    mesh = Mesh(head, template.triangles)
    assert np.isfinite(head).all()
    assert mesh.is_watertight()
    assert (mesh.face_areas() > 0).all()
    assert mesh.volume() == pytest.approx(Mesh(neutral, template.triangles).volume(), rel=0.06)
    moved = np.linalg.norm(head - neutral, axis=1)
    assert moved[template.in_regions("cranium", "ear_L", "ear_R")].max() < 12
    assert moved.max() < 45
    assert (moved.max() > 4) == (name != "neutral")


def test_sides_are_the_subjects(makehuman, template, person):
    neutral = makehuman.vertices(person)[0]
    for side, sign in (("Left", 1), ("Right", -1)):
        head = makehuman.vertices(person, units(makehuman, **{f"mouthSmile{side}": 1.0}))[0]
        weight = np.linalg.norm(head - neutral, axis=1)
        assert sign * (weight @ neutral[:, 0]) / weight.sum() > 15
    left = makehuman.vertices(person, units(makehuman, mouthLeft=1.0))[0]
    assert (left - neutral)[template.in_regions("mouth"), 0].mean() > 3


def test_a_smaller_head_has_smaller_expressions(makehuman, people):
    child = min(people, key=lambda person: person.about["years"]).coefficients[None]
    grown = next(p for p in people if 25 < p.about["years"] < 35).coefficients[None]
    lift = units(makehuman, browInnerUp=1.0)
    reach, size = [], []
    for coefficients in (child, grown):
        neutral = makehuman.vertices(coefficients)[0].astype(np.float64)
        reach.append(np.linalg.norm(makehuman.vertices(coefficients, lift)[0] - neutral, axis=1).max())
        size.append(1 / subject_similarity(makehuman, neutral).scale)
    assert size[0] < 0.85 * size[1]
    assert reach[0] / reach[1] == pytest.approx(size[0] / size[1], rel=0.06)


def test_the_jaw_turns_about_its_hinge(makehuman, template, person):
    chin, ears = template.anchors[ANCHORS.index("chin")], template.anchors[[ANCHORS.index(f"ear_{s}") for s in "LR"]]
    neutral = makehuman.vertices(person)[0].astype(np.float64)
    places = [
        makehuman.vertices(person, units(makehuman, jawRotate=weight))[0, chin].astype(np.float64)
        for weight in (0.0, 0.35, 0.7, 1.0)
    ]
    hinge = neutral[ears].mean(0)
    from_hinge = np.array(places) - hinge
    angle = np.unwrap(np.arctan2(from_hinge[:, 2], from_hinge[:, 1]))
    radius = np.hypot(from_hinge[:, 1], from_hinge[:, 2])
    np.testing.assert_allclose(radius, radius[0], rtol=5e-4)
    np.testing.assert_allclose(angle - angle[0], JAW_RADIANS * np.array([0, 0.35, 0.7, 1.0]), rtol=2e-3)
    np.testing.assert_allclose(from_hinge[:, 0], from_hinge[0, 0], atol=1e-3)
    assert places[-1][1] < places[0][1] - 20
    assert places[-1][2] < places[0][2]


def test_the_jaw_keeps_distances_where_it_follows_fully(makehuman, person):
    follow, ears = makehuman._jaw
    tracked = makehuman._tracked(person).astype(np.float64)
    turned = makehuman._rotate_jaw(tracked, np.array([1.0]))
    jaw = np.flatnonzero(follow == 1)
    assert len(jaw) > 10
    hinge = tracked[0, ears].mean(0)
    for before, after in ((tracked[0, jaw], turned[0, jaw]),):
        np.testing.assert_allclose(np.linalg.norm(after - hinge, axis=1), np.linalg.norm(before - hinge, axis=1))
        rigid = fit_similarity(before, after)
        np.testing.assert_allclose(rigid.apply(before), after, atol=1e-9)
        assert rigid.scale == pytest.approx(1)
    np.testing.assert_array_equal(turned[0, follow == 0], tracked[0, follow == 0])


def test_a_known_similarity_is_taken_out_of_the_shape(makehuman, people):
    coefficients = np.stack([person.coefficients for person in people[:2]])
    for head in makehuman.vertices(coefficients).astype(np.float64):
        similarity = subject_similarity(makehuman, head)
        turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        turn *= np.sign(np.linalg.det(turn))
        moved = 1.3 * head @ turn.T + (100, -40, 7)
        again = subject_similarity(makehuman, moved)
        assert again.scale == pytest.approx(similarity.scale / 1.3)
        np.testing.assert_allclose(again.apply(moved), similarity.apply(head), atol=1e-9)
