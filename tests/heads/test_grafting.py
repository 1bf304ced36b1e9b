from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.laplacian import cotangent_laplacian, mean_curvature
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.grafting import MOST_STRETCH, REACH_MM, GraftSite, fit_affine
from implicit3dmm.heads.template import PARTS, anchor_group

AFFINE = np.array([[1.2, 0.1, 0.0], [-0.05, 0.8, 0.1], [0.1, -0.1, 1.1]])

every_part = pytest.mark.parametrize("part", PARTS)


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    """Six neutral heads, canonical units."""
    return np.stack([head.vertices for head in generate(Recipe(seed=11, train=6))])


@pytest.fixture(scope="module")
def site(template):
    """The site of a part; made once."""
    return cache(lambda part: GraftSite.of(template, part))


def moved(site: GraftSite) -> np.ndarray:
    return np.concatenate([patch.inside for patch in site.patches])


def placed(patch, host: np.ndarray, donor: np.ndarray) -> np.ndarray:
    """The whole donor where the affine map of one patch puts it."""
    linear, offset = fit_affine(donor[patch.rim], host[patch.rim])
    return donor @ linear + offset


@every_part
def test_a_patch_is_one_disc_with_all_that_it_encloses(site, template, part):
    for patch in site(part).patches:
        whole = np.isin(template.triangles, patch.inside).all(axis=1)
        disc = template.mesh.with_faces(whole)
        assert len(disc.vertices) == len(patch.inside)
        assert disc.euler_number() == 1
    anchors = template.anchors[list(anchor_group(part))]
    assert np.isin(anchors, moved(site(part))).all()


def test_the_inside_of_the_mouth_goes_with_it_in_spite_of_its_labels(site, template):
    (patch,) = site("mouth").patches
    assert not template.in_regions("mouth")[patch.inside].all()


def test_the_eyes_are_two_patches(site, template):
    left, right = site("eyes").patches
    assert template.vertices[left.inside, 0].min() > 0 > template.vertices[right.inside, 0].max()
    assert len(site("nose").patches) == len(site("mouth").patches) == 1


@every_part
def test_the_rim_is_what_touches_the_patch_and_the_border_what_touches_the_rim(site, template, part):
    start, end = template.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).T
    for patch in site(part).patches:
        rim = np.setdiff1d(end[np.isin(start, patch.inside)], patch.inside)
        np.testing.assert_array_equal(patch.rim, rim)
        np.testing.assert_array_equal(patch.border, np.setdiff1d(end[np.isin(start, rim)], patch.inside))


@every_part
def test_the_blend_is_the_plate_on_springs(site, template, part):
    """Forces vanish inside, for the displacement that a border at random gives, computed on the whole head."""
    laplacian, areas = cotangent_laplacian(template.mesh)
    for patch in site(part).patches:
        distance = cdist(template.vertices[patch.inside], template.vertices[patch.rim]).min(axis=1)
        reach = REACH_MM / UNIT_MM
        u = np.zeros(len(areas))
        u[patch.border] = np.random.default_rng(0).normal(size=len(patch.border))
        u[patch.inside] = patch.blend @ u[patch.border]
        plate = (laplacian @ (laplacian @ u / areas))[patch.inside]
        springs = areas[patch.inside] * distance**4 / reach**8 * u[patch.inside]
        np.testing.assert_allclose(plate, -springs, atol=1e-6 * np.abs(plate).max())
        assert np.abs(u[patch.inside[distance.argmax()]]) < 0.05, "the middle stays as it was placed"


@every_part
@pytest.mark.parametrize("blended", [True, False])
def test_a_head_grafted_into_itself_does_not_change(site, heads, part, blended):
    np.testing.assert_allclose(site(part).graft(heads[0], heads[0], blended=blended), heads[0], atol=1e-12)


@every_part
@pytest.mark.parametrize("blended", [True, False])
def test_an_affine_image_of_the_host_gives_it_back(site, heads, part, blended):
    image = heads[0] @ AFFINE + (0.3, -0.2, 0.1)
    np.testing.assert_allclose(site(part).graft(heads[0], image, blended=blended), heads[0], atol=1e-9)


@every_part
@pytest.mark.parametrize("blended", [True, False])
def test_the_part_moves_and_nothing_else(site, heads, part, blended):
    host, donor = heads[:2].copy()
    composite = site(part).graft(host, donor, blended=blended)
    changed = (composite != host).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(changed), np.sort(moved(site(part))))
    np.testing.assert_array_equal(host, heads[0], err_msg="the host is left as it was")


@every_part
def test_the_part_is_more_the_donors_than_the_hosts(site, heads, part):
    composite = site(part).graft(heads[0], heads[1])
    for patch in site(part).patches:
        parts = [head[patch.inside] for head in (composite, heads[0])]
        donor = heads[1][patch.inside]
        mine, hosts = (np.linalg.norm(fit_similarity(p, donor).apply(p) - donor, axis=1).mean() for p in parts)
        assert mine < 0.75 * hosts


@every_part
def test_positions_agree_at_the_rim(site, heads, part):
    """Just inside the rim, the part is displaced nearly as the host differs from it just outside: there is no step."""
    host, donor = heads[2], heads[3]
    edges = site(part).crossing()
    for patch in site(part).patches:
        near = np.isin(patch.inside, edges[:, 0])
        assert np.abs(patch.blend[near].sum(axis=1) - 1).mean() < 0.1, "an even difference goes on as it is"
        inner, outer = edges[np.isin(edges[:, 0], patch.inside)].T
        there = placed(patch, host, donor)
        outside = (host - there)[outer]
        steps = [
            np.linalg.norm((site(part).graft(host, donor, blended=blended) - there)[inner] - outside, axis=1).mean()
            for blended in (True, False)
        ]
        assert steps[0] < 0.6 * steps[1]


@every_part
def test_the_blend_takes_the_seam_away(site, heads, part):
    hosts, donors = heads[:3], heads[3:]
    affine, blended = (site(part).graft(hosts, donors, blended=blended) for blended in (False, True))
    seams = {
        name: np.mean([site(part).seam(head) for head in group])
        for name, group in (("uncut", heads), ("affine", affine), ("blended", blended))
    }
    assert seams["blended"] < 0.15 * seams["affine"]
    assert seams["uncut"] < seams["affine"] / 5
    assert seams["blended"] < 1.6 * seams["uncut"]


def test_the_seam_is_in_millimetres_and_grows_with_a_step(site, template, heads):
    nose, head = site("nose"), heads[0]
    curvature = mean_curvature(Mesh(head * UNIT_MM, template.triangles))
    assert nose.seam(head) == pytest.approx(np.abs(np.subtract(*curvature[nose.crossing().T])).mean())
    assert nose.seam(2 * head) == pytest.approx(nose.seam(head) / 2)
    turned = head @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    assert nose.seam(turned) == pytest.approx(nose.seam(head))
    seams = [nose.seam(head)]
    for step_mm in (0.1, 0.3):
        stepped = head.copy()
        stepped[moved(nose), 2] += step_mm / UNIT_MM
        seams.append(nose.seam(stepped))
    assert seams[0] < seams[1] < seams[2]


@every_part
def test_composites_are_closed_and_no_triangle_is_turned_over(site, template, heads, part):
    inside = np.isin(template.triangles, moved(site(part)))
    for host, donor in (heads[:2], heads[2:4]):
        composite = Mesh(site(part).graft(host, donor), template.triangles)
        assert composite.is_watertight()
        assert composite.volume() > 0
        normals = [Mesh(head, template.triangles).face_normals() for head in (host, donor)]
        along_host, along_donor = (np.einsum("tx,tx->t", composite.face_normals(), n) for n in normals)
        assert (along_donor[inside.all(axis=1)] > 0).all()
        assert (along_host[inside.any(axis=1) & ~inside.all(axis=1)] > 0).all()


@every_part
def test_a_batch_is_as_one_by_one(site, heads, part):
    hosts, donors = heads.reshape(2, 3, -1, 3), heads[::-1].reshape(2, 3, -1, 3)
    together = site(part).graft(hosts, donors)
    assert together.shape == hosts.shape
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i], site(part).graft(hosts[i], donors[i]), atol=1e-12)


def test_an_unknown_part_is_refused_with_the_parts_there_are(template):
    with pytest.raises(InputError, match=r"^no part 'ears' to graft; there are nose, eyes, mouth$"):
        GraftSite.of(template, "ears")


def test_heads_of_another_topology_are_refused(site, heads):
    with pytest.raises(InputError, match=r"both must be heads of one topology, \(\.\.\., 14642, 3\)"):
        site("nose").graft(heads[0, :100], heads[1, :100])
    with pytest.raises(InputError, match="topology"):
        site("nose").seam(heads[0, :-1])


def ring(rng: np.random.Generator, height: float, n: int = 60) -> np.ndarray:
    """Points around a circle of radius 1, out of its plane by about `height`."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle), height * rng.normal(size=n)], axis=1)


def test_a_flat_rim_keeps_the_similaritys_depth():
    flat = ring(np.random.default_rng(0), 0.0)
    target = flat * (1.3, 0.9, 1.0)
    linear, offset = fit_affine(flat, target)
    np.testing.assert_allclose(flat @ linear + offset, target, atol=1e-12)
    depth = np.linalg.norm(linear[2])
    assert depth == pytest.approx(fit_similarity(flat, target).scale)
    assert np.linalg.det(linear) > 0


def test_noise_out_of_an_almost_flat_rim_is_not_followed():
    """Where the free affine map would flatten, mirror or blow up the depth, the stretch stays near 1."""
    rng = np.random.default_rng(1)
    free, kept = [], []
    for _ in range(50):
        source, target = ring(rng, 0.02), ring(rng, 0.02)
        spread = source - source.mean(axis=0)
        free.append(np.linalg.lstsq(spread, target - target.mean(axis=0), rcond=None)[0][2, 2])
        kept.append(fit_affine(source, target)[0][2, 2])
    assert min(free) < 0.1, "or the test shows nothing"
    np.testing.assert_allclose(kept, 1, atol=0.1)


def test_nothing_is_mirrored_or_flattened():
    source = ring(np.random.default_rng(2), 0.3)
    for scale in ((1, 1, -1), (1, 1, 0), (-1, 1, 1), (1, 0.1, 1), (5, 1, 1)):
        linear, _ = fit_affine(source, source * scale)
        values = np.linalg.svd(linear, compute_uv=False)
        assert np.linalg.det(linear) > 0
        assert values.max() / values.min() <= MOST_STRETCH**2 + 1e-9


def test_a_region_without_a_rim_is_refused(template):
    for regions, count in ((np.zeros_like(template.regions), "14642"), (np.ones_like(template.regions), "0")):
        with pytest.raises(InputError, match=f"region nose of the template has {count} of 14642 vertices and no rim"):
            GraftSite.of(replace(template, regions=regions), "nose")
