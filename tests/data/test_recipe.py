from dataclasses import replace

import numpy as np
import pytest

from implicit3dmm.data.quantisation import QUANTUM
from implicit3dmm.data.recipe import DETAIL_WAVELENGTHS_MM, SUBJECTS_AT_ONCE, Recipe, detail, generate, movement
from implicit3dmm.data.sources import expression_weights, subject_similarity
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.heads.frame import UNIT_MM

POSED = Recipe(seed=7, train=3, expressions=("neutral", "smile", "mouth_open"))


@pytest.fixture(scope="module")
def posed() -> list:
    return list(generate(POSED))


def assert_same_heads(heads, others):
    for head, other in zip(heads, others, strict=True):
        assert (head.subject, head.expression) == (other.subject, other.expression)
        np.testing.assert_array_equal(head.person.coefficients, other.person.coefficients)
        np.testing.assert_array_equal(head.units, other.units)
        np.testing.assert_allclose(head.vertices, other.vertices, atol=0.1 * QUANTUM)


def test_records_come_subject_by_subject(posed):
    assert [(head.subject, head.expression) for head in posed] == [
        (subject, expression) for subject in range(3) for expression in POSED.expressions
    ]


def test_equal_recipes_give_equal_heads(posed):
    assert all(np.array_equal(a.vertices, b.vertices) for a, b in zip(posed, generate(POSED), strict=True))


def test_another_seed_gives_other_heads(posed):
    other = next(generate(replace(POSED, seed=8)))
    assert np.abs(other.vertices - posed[0].vertices).max() > 0.01


def test_a_subject_does_not_depend_on_the_counts(posed):
    more = list(generate(replace(POSED, train=1, validation=1, test=SUBJECTS_AT_ONCE + 2)))
    assert_same_heads(posed, more[: len(posed)])


def test_single_subjects_are_those_of_the_whole(posed):
    assert_same_heads(posed[6:9] + posed[0:3], generate(POSED, (2, 0)))


def test_more_points_and_another_split_change_no_head(posed):
    other = replace(POSED, surface_points=5, distance_points=6, train=0, test=3)
    assert_same_heads(posed, generate(other))


def test_heads_are_the_sources_in_the_canonical_frame(makehuman, posed):
    for head in posed:
        coefficients = head.person.coefficients[None]
        neutral = makehuman.vertices(coefficients)[0].astype(np.float64)
        expected = subject_similarity(makehuman, neutral)
        np.testing.assert_allclose(head.similarity.matrix(), expected.matrix(), atol=1e-6)
        mm = makehuman.vertices(coefficients, head.units[None])[0]
        np.testing.assert_allclose(head.vertices, expected.apply(mm.astype(np.float64)), atol=1e-5)


def test_expressions_have_a_gain_of_their_own(makehuman, posed):
    smiles = [head.units for head in posed if head.expression == "smile"]
    plain = expression_weights(makehuman, "smile", None)
    gains = [units.max() / plain.max() for units in smiles]
    assert len({round(float(gain), 6) for gain in gains}) == 3
    assert not posed[0].units.any()


def test_splits_follow_each_other():
    recipe = Recipe(train=2, validation=1, test=3)
    assert [recipe.split_of(i) for i in range(recipe.subjects)] == ["train"] * 2 + ["validation"] + ["test"] * 3
    assert Recipe(train=0, test=1).split_of(0) == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "flame"}, r"no head source 'flame'; there are .*makehuman"),
        ({"train": -1}, "at least 0"),
        ({"train": 0}, "not all 0"),
        ({"surface_points": 0}, "surface_points"),
        ({"distance_points": -5}, "distance_points"),
        ({"detail_mm": 3.5}, r"detail_mm is 3\.5"),
        ({"detail_mm": float("nan")}, "detail_mm is nan"),
        ({"expressions": ()}, "expressions: none given"),
        ({"expressions": ("neutral", "grin")}, r"expressions: \['grin'\]"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(change, message):
    with pytest.raises(InputError, match=message):
        replace(Recipe(), **change).validate()


def test_the_default_is_valid():
    Recipe().validate()


class TestDetail:
    def test_it_has_the_height_that_was_asked_for(self, template):
        for rms in (0.2, 1.0):
            measured = [
                np.sqrt(np.mean(detail(template.vertices, rms, np.random.default_rng(seed)) ** 2)) for seed in range(6)
            ]
            assert np.sqrt(np.mean(np.square(measured))) == pytest.approx(rms, rel=0.05)
            np.testing.assert_allclose(measured, rms, rtol=0.2)

    def test_it_has_only_the_wavelengths_of_its_band(self):
        """Along a line, a wave shows at its length or longer; none is shorter than the band's lower end."""
        step, count = 0.5, 4096
        line = np.zeros((count, 3))
        line[:, 0] = np.arange(count) * step / UNIT_MM
        spectrum = np.abs(np.fft.rfft(detail(line, 1.0, np.random.default_rng(0)) * np.hanning(count))) ** 2
        frequency = np.fft.rfftfreq(count, step)
        assert spectrum[frequency > 1.02 / DETAIL_WAVELENGTHS_MM[0]].sum() < 1e-3 * spectrum.sum()
        assert spectrum[frequency > 1 / DETAIL_WAVELENGTHS_MM[1]].sum() > 0.3 * spectrum.sum()

    def test_it_lies_along_the_normals_of_the_plain_head(self, template):
        recipe = Recipe(seed=2, train=1)
        plain, rough = next(generate(recipe)), next(generate(replace(recipe, detail_mm=0.5)))
        offset = (rough.vertices - plain.vertices) / plain.similarity.scale
        normals = Mesh(plain.vertices, template.triangles).vertex_normals()
        height = (offset * normals).sum(1)
        np.testing.assert_allclose(offset, height[:, None] * normals, atol=1e-6)
        assert np.sqrt(np.mean(height**2)) == pytest.approx(0.5, rel=0.2)

    def test_it_belongs_to_the_subject_and_not_to_the_expression(self, template):
        recipe = replace(POSED, train=2)
        heights = []
        for plain, rough in zip(generate(recipe), generate(replace(recipe, detail_mm=0.5)), strict=True):
            normals = Mesh(plain.vertices, template.triangles).vertex_normals()
            heights.append(((rough.vertices - plain.vertices) * normals).sum(1) / plain.similarity.scale)
        for same in (1, 2):
            np.testing.assert_allclose(heights[same], heights[0], atol=1e-6)
        assert abs(np.corrcoef(heights[0], heights[3])[0, 1]) < 0.2

    def test_zero_is_the_plain_source(self, posed):
        assert_same_heads(posed, generate(replace(POSED, detail_mm=0.0)))

    def test_it_changes_neither_frame_nor_expression(self, posed):
        for head, rough in zip(posed, generate(replace(POSED, detail_mm=0.4)), strict=True):
            np.testing.assert_array_equal(head.units, rough.units)
            np.testing.assert_array_equal(head.similarity.matrix(), rough.similarity.matrix())


EXPRESSIVE = Recipe(seed=7, train=2, expressions=("neutral", "smile"), random_expressions=3, moving_share=0.5)


def test_random_expressions_follow_the_named_ones_and_move_a_few_units():
    heads = list(generate(EXPRESSIVE))
    assert [head.expression for head in heads[:5]] == ["neutral", "smile", "random_1", "random_2", "random_3"]
    for head in heads:
        if head.expression.startswith("random"):
            moved = head.units[head.units != 0]
            assert 1 <= len(moved) <= 10
            assert (moved > 0.1).all()
            assert (moved < 1.2).all()
    assert not np.array_equal(heads[2].units, heads[3].units)


def test_random_expressions_leave_the_named_ones_as_they_are():
    plain = list(generate(replace(EXPRESSIVE, random_expressions=0, moving_share=0.0)))
    assert_same_heads([head for head in generate(EXPRESSIVE) if head.expression in ("neutral", "smile")], plain)


def test_every_head_knows_its_vertices_at_rest():
    heads = list(generate(EXPRESSIVE))
    assert all(np.array_equal(head.neutral, heads[0].vertices) for head in heads[:5])
    assert not np.array_equal(heads[1].neutral, heads[1].vertices)


def test_movement_is_where_expressions_move_and_counts_each_alike(makehuman):
    moved = movement(EXPRESSIVE)
    mouth, cranium = (moved[makehuman.template.in_regions(name)].mean() for name in ("mouth", "cranium"))
    assert mouth > 5 * cranium
    assert moved.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random_expressions": -1}, "random_expressions is -1"),
        ({"moving_share": 1.5}, "moving_share is 1.5"),
        ({"expressions": ("neutral",), "random_expressions": 0}, "moving_share is 0.5"),
    ],
)
def test_wrong_recipes_of_expressions_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(EXPRESSIVE, **changes).validate()
