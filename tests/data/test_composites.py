"""Composite heads: who gives which part, what they look like, and what a corpus and a training make of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.composites import (
    draw_donors,
    graft_sites,
    keypoint_vertices,
    settle_remainder,
    stages,
    vertex_parts,
)
from implicit3dmm.data.corpora import Corpora
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.distance import barycentric_weights, distance_to_surface
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import interpolated
from implicit3dmm.heads.template import ALL_PARTS, ANCHOR_GROUPS, ANCHORS, PARTS, REMAINDER
from implicit3dmm.latents import LatentBank, LatentSpec
from implicit3dmm.training.starts import start_codes

RECIPE = Recipe(seed=9, train=4, validation=2, swaps=2, surface_points=256, distance_points=256)


@pytest.fixture(scope="module")
def heads():
    return list(generate(RECIPE))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(RECIPE, tmp_path_factory.mktemp("composites") / "small")


def test_one_donor_gives_all_parts_and_is_another():
    rng = np.random.default_rng(0)
    for _ in range(20):
        donors = draw_donors(1, range(3), "one", rng)
        assert donors[REMAINDER] == 1
        assert len({donors[part] for part in PARTS}) == 1
        assert donors["nose"] != 1


def test_independent_donors_mix_all_there_are():
    rng = np.random.default_rng(0)
    drawn = [draw_donors(1, range(3), "independent", rng) for _ in range(200)]
    seen = np.array([[donors[part] for part in PARTS] for donors in drawn])
    assert set(map(tuple, seen)) == {(a, b, c) for a in range(3) for b in range(3) for c in range(3)}


def test_each_subject_has_its_own_head_and_its_composites(heads):
    assert [(head.subject, head.expression) for head in heads] == [
        (subject, name) for subject in range(6) for name in ("neutral", "swap_1", "swap_2")
    ]
    assert all(set(head.donors.values()) == {head.subject} for head in heads if head.expression == "neutral")
    assert all(head.donors[REMAINDER] == head.subject and not head.units.any() for head in heads)


def test_donors_are_of_the_same_split(heads):
    for head in heads:
        assert {RECIPE.split_of(donor) for donor in head.donors.values()} == {RECIPE.split_of(head.subject)}


def test_a_part_is_the_donors_and_all_else_the_hosts(heads, makehuman):
    neutral = {head.subject: head.vertices for head in heads if head.expression == "neutral"}
    for head in heads:
        touched, expected = np.zeros(len(head.vertices), bool), neutral[head.subject]
        for part, site in graft_sites(makehuman).items():
            if head.donors[part] != head.subject:
                touched |= site.inside
                expected = site.graft(expected, neutral[head.donors[part]])
        np.testing.assert_allclose(head.vertices, expected, atol=1e-6)
        np.testing.assert_array_equal(head.vertices[~touched], neutral[head.subject][~touched])
        assert head.neutral is head.vertices


def test_composites_of_one_head_are_the_same_whatever_else_is_made(heads):
    alone = list(generate(RECIPE, (3,)))
    for one, other in zip(alone, heads[9:12], strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-6)


def test_expressions_stay_as_they_are_without_composites():
    plain = Recipe(seed=9, train=2, expressions=("neutral", "smile"), random_expressions=1)
    mixed = [head for head in generate(replace(plain, swaps=1)) if not head.expression.startswith("swap_")]
    for one, other in zip(generate(plain), mixed, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)


def test_a_seam_may_be_left(heads, makehuman):
    seams = {}
    for blended in (True, False):
        head = next(h for h in generate(replace(RECIPE, blended_seams=blended), (0,)) if h.expression == "swap_2")
        changed = [part for part in PARTS if head.donors[part] != 0]
        seams[blended] = sum(graft_sites(makehuman)[part].seam(head.vertices) for part in changed)
        assert changed
    assert seams[True] < 0.3 * seams[False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swaps": -1}, "swaps is -1"),
        ({"train": 1}, "swaps needs other subjects"),
        ({"validation": 1}, "swaps needs other subjects"),
        ({"part_share": 1.2}, "part_share is 1.2"),
        ({"part_share": 0.5, "moving_share": 0.6, "expressions": ("smile",)}, "part_share is 0.5"),
    ],
)
def test_bad_recipes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(RECIPE, **change).validate()


def test_every_vertex_has_a_part(makehuman, template):
    labels = vertex_parts(makehuman)
    for part, stems in (("nose", ("nose_tip", "nose_ala")), ("mouth", ANCHOR_GROUPS["mouth"]), (REMAINDER, ("ear",))):
        own = [v for v, a in zip(template.anchors, ANCHORS, strict=True) if a.startswith(stems)]
        assert own
        assert (labels[own] == ALL_PARTS.index(part)).all()


def test_stages_lead_from_the_head_to_the_template(heads, makehuman, template):
    head, labels = heads[1].vertices, vertex_parts(makehuman)
    whole = stages(makehuman, head)
    places, rest = settle_remainder(whole, labels), labels == ALL_PARTS.index(REMAINDER)
    np.testing.assert_array_equal(places[0, 0], head)
    np.testing.assert_array_equal(places[1, 1], template.vertices)
    np.testing.assert_array_equal(places[0, 1, rest], template.vertices[rest])
    np.testing.assert_array_equal(places[1, 0, rest], template.vertices[rest])
    grafted = head
    for site in graft_sites(makehuman).values():
        grafted = site.graft(grafted, template.vertices)
    np.testing.assert_array_equal(whole[1, 0], grafted)
    np.testing.assert_array_equal(places[1, 0, ~rest], grafted[~rest])
    assert np.abs(places[0, 1] - places[1, 1])[~rest].max() > 1e-3


def test_the_template_itself_has_nowhere_to_go(makehuman, template):
    same = stages(makehuman, template.vertices)
    np.testing.assert_allclose(same, np.broadcast_to(template.vertices, same.shape), atol=1e-6)


class TestCorpus:
    def test_it_knows_donors_and_keypoints(self, corpus, heads):
        assert corpus.whole.tolist() == [head.expression == "neutral" for head in heads]
        for part in ALL_PARTS:
            assert corpus.donors[part].tolist() == [head.donors[part] for head in heads]
        assert corpus.neutral.all()
        vertices = keypoint_vertices(corpus.source.template)
        labels = vertex_parts(corpus.source)[vertices]
        expected = np.stack(
            [settle_remainder(stages(corpus.source, h.vertices)[:, :, vertices], labels) for h in heads]
        )
        np.testing.assert_allclose(corpus.keypoints, expected, atol=1e-6)
        assert corpus.keypoint_parts.tolist() == labels.tolist()

    def test_samples_know_where_they_are_on_the_way(self, corpus, heads):
        samples = corpus.samples(torch.tensor([1]), (256, 1), torch.Generator().manual_seed(0))
        head = heads[1].vertices
        mesh, whole = Mesh(head, corpus.source.template.triangles), stages(corpus.source, head)
        near = distance_to_surface(samples.surface[0].double().numpy(), mesh)
        faces, barycentric = mesh.faces[near.face], barycentric_weights(near.point, mesh, near.face)
        corner = faces[np.arange(256), barycentric.argmax(1)]
        sure = barycentric.max(1) > 0.6
        labels = vertex_parts(corpus.source)[corner]
        assert (samples.parts[0].numpy() == labels)[sure].all()
        assert len(set(labels)) == 4
        places = np.stack([interpolated(each, faces, barycentric) for each in whole.reshape(4, -1, 3)])
        expected = settle_remainder(places.reshape(2, 2, -1, 3), samples.parts[0].numpy())
        np.testing.assert_allclose(samples.stages[0], expected, atol=5e-4)

    def test_a_corpus_without_composites_has_none(self, tiny_corpus):
        assert tiny_corpus.whole.all()
        assert tiny_corpus.keypoints.shape == (len(tiny_corpus.record_subject), 2, 2, 0, 3)
        assert len(tiny_corpus.keypoint_parts) == 0
        samples = tiny_corpus.samples(torch.tensor([1, 2]), (8, 8), torch.Generator())
        assert samples.stages.shape == (2, 2, 2, 0, 3)
        assert samples.parts.shape == (2, 0)
        assert all(torch.equal(rows, tiny_corpus.record_subject) for rows in tiny_corpus.donors.values())

    def test_corpora_number_the_donors_after_the_first_and_refuse_a_mixture(self, corpus, tiny_corpus):
        both = Corpora([tiny_corpus, corpus])
        first = tiny_corpus.recipe.subjects
        assert torch.equal(both.donors["eyes"][len(tiny_corpus.record_subject) :], corpus.donors["eyes"] + first)
        assert both.whole.sum() == first + corpus.recipe.subjects
        with pytest.raises(InputError, match="some have none"):
            _ = both.keypoints

    def test_a_share_of_the_samples_lies_on_the_parts(self, tmp_path, makehuman, corpus):
        dense = build_corpus(replace(RECIPE, part_share=0.6, train=2, validation=0), tmp_path / "dense")

        def shares(samples):
            regions = np.concatenate([shard["surface_regions"].ravel() for shard in samples._shards])
            of_part = [makehuman.template.regions[site.inside] for site in graft_sites(makehuman).values()]
            return np.isin(regions, np.unique(np.concatenate(of_part))).mean()

        assert shares(dense) > shares(corpus) + 0.4


def test_each_part_reads_the_code_of_its_donor(corpus):
    specs = [LatentSpec(part, 2, 1.0, "subject", part=part) for part in ALL_PARTS]
    bank = LatentBank(specs, corpus.record_subject, torch.Generator().manual_seed(0), donors=corpus.donors)
    codes = bank.codes(torch.tensor([1, 5]))
    for part in ALL_PARTS:
        assert bank.tables[part].shape == (6, 2)
        assert torch.equal(codes[part], bank.tables[part][corpus.donors[part][[1, 5]]])


def test_the_code_of_a_part_starts_from_what_is_the_subjects_own_there(corpus):
    subjects = corpus.subjects("train")
    specs = [LatentSpec(part, 2, 1.0, "subject", part=part) for part in ALL_PARTS]
    bank = LatentBank(specs, corpus.record_subject, torch.Generator().manual_seed(0), donors=corpus.donors)
    start_codes(bank, corpus, subjects, whitening=0.0)
    sites, template = graft_sites(corpus.source), corpus.source.template.vertices
    whole = np.stack([corpus.head(3 * int(subject)).vertices for subject in subjects])
    noses = np.stack([sites["nose"].graft(template, head)[sites["nose"].inside] for head in whole])
    moved = (noses - noses.mean(0)).reshape(len(noses), -1)
    left, spread, _ = np.linalg.svd(moved, full_matrices=False)
    expected = left[:, :2] * spread[:2]
    found = bank.tables["nose"].detach()[subjects].numpy()
    np.testing.assert_allclose(np.abs(np.corrcoef(found.T, expected.T)[:2, 2:]), np.eye(2), atol=0.02)
