from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import UNKNOWN, RegisteredHeads
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.decoupling import (
    CANDIDATES,
    DecouplingConfig,
    decoupling_figures,
    decoupling_table,
    nearest_distance,
)
from implicit3dmm.evaluation.populations import ModelPopulation, Population, RegisteredPopulation
from implicit3dmm.evaluation.references import open_reference
from implicit3dmm.evaluation.verification import NormalImage, Verifier, VerifierConfig, triplet_loss
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.parameterisation import border_loops, disc_faces, square_parameterisation
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.mesh_models.geometry_image import GeometryImage
from implicit3dmm.mesh_models.pca import PCAModel, save_pca

LOOKS = 5
CONFIG = DecouplingConfig(pairs=150, faces=12, variants=6, specimens=20)
VERIFIER = VerifierConfig(channels=(8, 16), dimension=8, steps=100, labels=8, heads=3, pairs=300)
_ICOSPHERE = trimesh.creation.icosphere(subdivisions=2)
BALL = Mesh(np.asarray(_ICOSPHERE.vertices), np.asarray(_ICOSPHERE.faces))
FACE = disc_faces(BALL, BALL.vertices[:, 2] > -0.1)
PATCH = np.unique(BALL.faces[FACE])


def people(count: int, seed: int) -> RegisteredHeads:
    """Wavy balls, each with no bump or one in four places, larger or smaller; the last place has no name."""
    rng = np.random.default_rng(seed)
    waves = np.sin(2 * BALL.vertices @ rng.normal(size=(count, 3, 4)) + rng.uniform(0, 6, size=(count, 1, 4)))
    shapes = 1 + 0.12 * waves.sum(-1)[:, None, :, None]
    places = np.array([[0, 0, -9], [-0.6, 0, 0.8], [0.6, 0, 0.8], [0, 0.6, 0.8], [0, -0.6, 0.8]])
    bumps = np.exp(-8 * np.square(BALL.vertices - places[:, None]).sum(-1))
    strength = 0.5 * rng.uniform(0.8, 1.2, size=(count, LOOKS, 1, 1))
    vertices = 0.4 * BALL.vertices * (shapes + strength * bumps[None, :, :, None])
    row = np.arange(count * LOOKS)
    expression = np.where(row % LOOKS == LOOKS - 1, UNKNOWN, row % LOOKS)
    return RegisteredHeads(
        vertices.reshape(len(row), -1, 3).astype(np.float32),
        row // LOOKS,
        row // LOOKS * LOOKS,
        {"identity": row // LOOKS, "expression": expression},
    )


@pytest.fixture(scope="module")
def training() -> RegisteredHeads:
    return people(40, 0)


@pytest.fixture(scope="module")
def held_out() -> RegisteredHeads:
    return people(12, 1)


@pytest.fixture(scope="module")
def look() -> NormalImage:
    patch = BALL.with_faces(FACE)
    (loop,) = border_loops(patch.faces)
    mapped = square_parameterisation(patch, top=int(loop[patch.vertices[loop, 1].argmax()]))
    return NormalImage(GeometryImage(mapped, 16), patch.faces)


@pytest.fixture(scope="module")
def verifiers(look, training, held_out) -> dict[str, Verifier]:
    return {
        factor: Verifier.train(look, PATCH, training, held_out, factor, VERIFIER)
        for factor in ("identity", "expression")
    }


@pytest.fixture(scope="module")
def people_of_recipe() -> Heads:
    return Heads(Recipe(seed=3, train=8, expressions=("neutral", "smile", "surprise")), name="people")


class Additive:
    """Sums of a ball of one person and what an expression adds to another's."""

    name, factors = "additive", ("identity", "expression")

    def __init__(self, heads: RegisteredHeads):
        self._neutral = heads.vertices[np.unique(heads.rest)]
        moved = np.flatnonzero(heads.labels["expression"] > 0)
        self._added = heads.vertices[moved] - heads.vertices[heads.rest[moved]]

    def draw(self, factor, groups, size, rng):
        who, what = (rng.integers(len(rows), size=(groups, size)) for rows in (self._neutral, self._added))
        who, what = (who[:, :1] if factor == "identity" else who), (what[:, :1] if factor == "expression" else what)
        return self._neutral[who] + self._added[what]


@pytest.fixture(scope="module")
def additive(training) -> Additive:
    return Additive(training)


class Shuffled:
    """Groups that are said to share a factor, but share nothing."""

    name = "shuffled"
    factors = ("identity", "expression")

    def __init__(self, population: Population):
        self._population = population

    def draw(self, factor, groups, size, rng):
        return self._population.draw(None, groups, size, rng)


class TestPopulations:
    def test_training_heads_share_labels_and_are_different_ones(self, training):
        population = RegisteredPopulation("training", training)
        assert isinstance(population, Population)
        assert population.factors == ("identity", "expression")
        for factor in population.factors:
            groups = population.draw(factor, 30, 3, np.random.default_rng(0))
            for group in groups:
                rows = [int(np.flatnonzero((training.vertices == head).all((1, 2)))[0]) for head in group]
                assert len(set(rows)) == 3
                (label,) = set(training.labels[factor][rows].tolist())
                assert label != UNKNOWN

    def test_no_head_is_among_the_others_however_many_are_drawn(self, training):
        groups = RegisteredPopulation("training", training).draw("identity", 20, 30, np.random.default_rng(0))
        for first, *others in groups:
            assert not any(np.array_equal(first, other) for other in others)

    def test_a_factor_that_no_two_heads_share_is_refused(self, training):
        alone = replace(training, labels={"identity": np.arange(len(training))})
        with pytest.raises(InputError, match="no two heads of alone share a label of 'identity'"):
            RegisteredPopulation("alone", alone).draw("identity", 1, 2, np.random.default_rng(0))

    def test_additive_heads_are_a_person_plus_an_expression(self, people_of_recipe, tmp_path):
        model = PCAModel.of(people_of_recipe, components=5, shows="additive", expression_components=3)
        save_pca(tmp_path / "pca.safetensors", model)
        population = ModelPopulation(open_reference(tmp_path / "pca.safetensors"))
        pair = population.draw("identity", 1, 2, np.random.default_rng(0))[0]
        apart = (pair[0] - pair[1]).ravel()
        basis = model.basis[:, model.place("expression")]
        assert basis.shape[1] == 3
        left = apart - basis @ np.linalg.lstsq(basis, apart, rcond=None)[0]
        assert np.linalg.norm(left) < 1e-4 * np.linalg.norm(apart)
        with pytest.raises(InputError, match="no factor 'age' in pca; additive models have identity and expression"):
            model.place("age")

    def test_other_components_share_nothing(self, people_of_recipe):
        model = PCAModel.of(people_of_recipe, components=5)
        assert model.factors == ()
        with pytest.raises(InputError, match="no factor 'identity'"):
            model.place("identity")


class TestVerifier:
    def test_normals_are_those_of_the_mesh(self, look, training):
        patch = Mesh(training.vertices[3][PATCH], look.faces.numpy())
        expected = look.image(torch.from_numpy(patch.vertex_normals()).float()[None])
        seen = look(torch.from_numpy(training.vertices[3:4][:, PATCH]))
        np.testing.assert_allclose(seen, expected, atol=1e-5)

    def test_triplets_are_those_of_the_definition(self):
        torch.manual_seed(0)
        points, labels = torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 1, 2])
        found = [
            float((points[a] - points[p]).square().sum() - (points[a] - points[n]).square().sum() + 0.5)
            for a in range(6)
            for p in range(6)
            for n in range(6)
            if p != a and labels[p] == labels[a] != labels[n]
        ]
        violated = [value for value in found if value > 0]
        assert triplet_loss(points, labels, 0.5) == pytest.approx(np.mean(violated), rel=1e-5)
        apart = 100.0 * torch.eye(3)[labels]
        assert triplet_loss(apart, labels, 0.5) == 0

    @pytest.mark.parametrize("factor", ["identity", "expression"])
    def test_held_out_heads_are_told_apart(self, verifiers, factor):
        verifier = verifiers[factor]
        assert verifier.accuracy > 0.75
        assert verifier.accepted <= VERIFIER.false_acceptance

    def test_a_head_passes_for_itself(self, verifiers, held_out):
        groups = np.repeat(held_out.vertices[:4, None][:, :, PATCH], 3, axis=1)
        np.testing.assert_array_equal(verifiers["identity"].same(groups), 1)

    def test_few_false_acceptances_cost_accuracy(self, look, training, held_out):
        strict = Verifier.train(
            look, PATCH, training, held_out, "identity", replace(VERIFIER, steps=5, false_acceptance=0.0)
        )
        assert strict.accepted == 0
        loose = Verifier.train(
            look, PATCH, training, held_out, "identity", replace(VERIFIER, steps=5, false_acceptance=1.0)
        )
        assert loose.threshold >= strict.threshold
        assert loose.accuracy >= strict.accuracy

    def test_too_few_labels_are_refused(self, look, training, held_out):
        with pytest.raises(InputError, match="fewer than two labels of 'age' have two heads each"):
            Verifier.train(look, PATCH, training, held_out, "age", VERIFIER)


class TestFigures:
    def test_a_model_stands_beside_its_training_heads(self, training, additive, verifiers):
        of_model, of_heads, of_none = (
            decoupling_figures(population, heads, verifiers, vertices=PATCH, config=CONFIG)
            for population, heads in (
                (additive, training.vertices),
                (RegisteredPopulation("training", training), None),
                (Shuffled(additive), training.vertices),
            )
        )
        for figures in (of_model, of_heads):
            assert figures["diversity, same identity"].mean < figures["diversity"].mean
            assert figures["same identity, %"].mean > 80
            assert figures["same expression, %"].mean > 50
        assert of_none["same identity, %"].mean < 40
        assert of_none["diversity, same identity"].mean == pytest.approx(of_none["diversity"].mean, rel=0.2)
        assert of_model["diversity"].count == CONFIG.pairs
        assert of_model["same identity, %"].count == CONFIG.faces
        assert of_model["specificity"].count == CONFIG.specimens
        assert "specificity" not in of_heads
        page = decoupling_table({"training heads": of_heads, "additive": of_model})
        assert page.splitlines()[2].endswith("– |")
        assert "same expression, %" in page

    def test_diversity_is_the_mean_distance_of_pairs(self, training):
        class TwoHeads:
            name, factors = "two", ()

            def draw(self, factor, groups, size, rng):
                heads = np.zeros((groups, size, len(BALL.vertices), 3), np.float32)
                heads[:, 1:, :, 0] = 3 / UNIT_MM
                return heads

        config = replace(CONFIG, specimens=3)
        figures = decoupling_figures(TwoHeads(), training.vertices, {}, vertices=PATCH, config=config)
        assert figures["diversity"].mean == pytest.approx(3)
        assert figures["diversity"].half_width == pytest.approx(0, abs=1e-5)
        nearest = np.linalg.norm(training.vertices[:, PATCH], axis=-1).mean(-1).min() * UNIT_MM
        assert figures["specificity"].mean == pytest.approx(nearest, rel=1e-5)

    def test_equal_seeds_give_equal_figures(self, additive, training):
        one, same, other = (
            decoupling_figures(
                additive, training.vertices, {}, vertices=PATCH, config=replace(CONFIG, pairs=20, seed=seed)
            )
            for seed in (0, 0, 1)
        )
        assert one == same != other

    def test_the_nearest_head_is_found_at_a_glance(self, training):
        rng = np.random.default_rng(0)
        others = training.vertices + 0.01 * rng.normal(size=training.vertices.shape).astype(np.float32)
        assert len(others) > 2 * CANDIDATES
        for head in training.vertices[:10]:
            assert nearest_distance(head, others) == pytest.approx(
                float(np.linalg.norm(others - head, axis=-1).mean(-1).min())
            )

    @pytest.mark.parametrize(("change", "message"), [({"pairs": 0}, "pairs is 0"), ({"seed": -1}, "seed is -1")])
    def test_settings_out_of_range_are_refused(self, change, message):
        with pytest.raises(InputError, match=message):
            replace(CONFIG, **change).validate()
