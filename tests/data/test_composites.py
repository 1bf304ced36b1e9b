"""Composite heads: who gives which part, what they look like, and what a corpus and a training make of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.composites import draw_donors, graft_sites, keypoint_parts, keypoint_vertices, keypoints
from implicit3dmm.data.corpora import Corpora
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.errors import InputError
from implicit3dmm.heads.grafting import PARTS, REMAINDER
from implicit3dmm.heads.template import ANCHOR_GROUPS, ANCHORS
from implicit3dmm.latents import LatentBank, LatentSpec
from implicit3dmm.training.starts import start_codes

RECIPE = Recipe(seed=9, train=4, validation=2, swaps=2, surface_points=256, distance_points=256)
ALL = (*PARTS, REMAINDER)


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


def test_keypoints_are_the_anchors_and_landmarks_and_know_their_parts(makehuman, template):
    parts = keypoint_parts(makehuman)
    assert len(parts) == len(keypoint_vertices(template)) == len(ANCHORS) + 68
    for part, stems in (("nose", ("nose_tip", "nose_ala")), ("mouth", ANCHOR_GROUPS["mouth"]), (REMAINDER, ("ear",))):
        for number, anchor in enumerate(ANCHORS):
            if anchor.removesuffix("_L").removesuffix("_R") in stems:
                assert parts[number] == part


def test_keypoints_go_from_the_head_to_the_template(heads, makehuman, template):
    head = heads[1].vertices
    stages, vertices = keypoints(makehuman, head), keypoint_vertices(template)
    rest = np.array(keypoint_parts(makehuman)) == REMAINDER
    np.testing.assert_allclose(stages[0, 0], head[vertices], atol=1e-6)
    np.testing.assert_allclose(stages[1, 1], template.vertices[vertices], atol=1e-6)
    np.testing.assert_array_equal(stages[0, 1, rest], stages[1, 1, rest])
    np.testing.assert_array_equal(stages[1, 0, rest], stages[1, 1, rest])
    grafted = head
    for site in graft_sites(makehuman).values():
        grafted = site.graft(grafted, template.vertices)
    np.testing.assert_allclose(stages[1, 0, ~rest], grafted[vertices[~rest]], atol=1e-6)
    assert np.abs(stages[0, 1] - stages[1, 1])[~rest].max() > 1e-3
    same = keypoints(makehuman, template.vertices)
    np.testing.assert_allclose(same, np.broadcast_to(same[0, 0], same.shape), atol=1e-6)


class TestCorpus:
    def test_it_knows_donors_and_keypoints(self, corpus, heads):
        assert corpus.whole.tolist() == [head.expression == "neutral" for head in heads]
        for part in ALL:
            assert corpus.donors[part].tolist() == [head.donors[part] for head in heads]
        assert corpus.neutral.all()
        expected = np.stack([keypoints(corpus.source, head.vertices) for head in heads])
        np.testing.assert_allclose(corpus.keypoints, expected, atol=1e-6)
        assert len(corpus.keypoint_parts) == corpus.keypoints.shape[3]

    def test_a_corpus_without_composites_has_none(self, tiny_corpus):
        assert tiny_corpus.whole.all()
        assert tiny_corpus.keypoints.shape == (len(tiny_corpus.record_subject), 2, 2, 0, 3)
        assert tiny_corpus.keypoint_parts == ()
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
    specs = [LatentSpec(part, 2, 1.0, "subject", part=part) for part in ALL]
    bank = LatentBank(specs, corpus.record_subject, torch.Generator().manual_seed(0), donors=corpus.donors)
    codes = bank.codes(torch.tensor([1, 5]))
    for part in ALL:
        assert bank.tables[part].shape == (6, 2)
        assert torch.equal(codes[part], bank.tables[part][corpus.donors[part][[1, 5]]])


def test_the_code_of_a_part_starts_from_what_is_the_subjects_own_there(corpus):
    subjects = corpus.subjects("train")
    specs = [LatentSpec(part, 2, 1.0, "subject", part=part) for part in ALL]
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
