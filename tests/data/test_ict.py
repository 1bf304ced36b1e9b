import numpy as np
import pytest

from implicit3dmm.data.average_head import alignment_target
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.recipe import Recipe, generate
from implicit3dmm.data.sources import expression_weights, ict, open_source, subject_similarity
from implicit3dmm.data.sources.ict_files import CLONE_VARIABLE, DATA_VARIABLE, FILE_NAME, load_ict_arrays
from implicit3dmm.data.sources.makehuman import EXPRESSIONS
from implicit3dmm.geometry.alignment import align_scan
from implicit3dmm.geometry.distance import distance_to_surface, winding_number
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.sampling import sample_surface
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.cage import Cage
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import ANCHORS, FACE_REGIONS, REGIONS, anchor_mirror
from implicit3dmm.heads.transfer import mirrored_regions


@pytest.fixture(scope="module")
def environment(data_folder):
    """Names the data folder while the tests of this file run."""
    if not (data_folder / FILE_NAME).is_file():
        pytest.skip(f"needs {FILE_NAME}, which the project may not carry: put it into the folder {DATA_VARIABLE}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(DATA_VARIABLE, str(data_folder))
        patch.delenv(CLONE_VARIABLE, raising=False)
        yield


@pytest.fixture(scope="module")
def source(environment):
    return open_source("ict")


@pytest.fixture(scope="module")
def people(source) -> np.ndarray:
    """Coefficients (40, 100)."""
    rng = np.random.default_rng(0)
    return np.stack([source.sample_subject(rng).coefficients for _ in range(40)])


@pytest.fixture(scope="module")
def heads(source, people) -> np.ndarray:
    """Their vertices in the canonical frame."""
    return np.stack(
        [subject_similarity(source, head).apply(head) for head in source.vertices(people).astype(np.float64)]
    )


@pytest.fixture(scope="module")
def published(environment, data_folder):
    """The closed head with its shoulders, made by another program."""
    with np.load(data_folder / "ict_closed_topology.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def full_cage(environment) -> Cage:
    """The closed head with its shoulders."""
    arrays = load_ict_arrays()
    return ict.closed_cage(arrays["template"].astype(np.float64), ict._skin_polygons(arrays))[0]


def test_the_full_skin_closes_to_the_published_topology(full_cage, published):
    assert full_cage.closing.vertex_count == 11588
    films = int(published["neck_r1"].min())
    polygons = {frozenset(row[row >= 0].tolist()) for row in published["faces"]}
    assert {frozenset(face) for face in full_cage.faces if max(face) < films} == {p for p in polygons if max(p) < films}
    assert len(full_cage.faces) == len(polygons)
    np.testing.assert_array_equal(full_cage.mirror[:films], published["mirror"][:films])
    assert set(full_cage.closing.neck[0].tolist()) == set(published["neck_loop"].tolist())


def test_it_is_one_closed_surface(source):
    template = source.template
    assert template.mesh.is_watertight()
    assert template.mesh.euler_number() == 2
    assert template.mesh.volume() > 0
    assert (template.mesh.face_areas() > 0).all()
    cap = Mesh(template.vertices, template.triangles[template.cap])
    assert cap.euler_number() == 1, "a disc"
    assert set(template.regions[template.triangles[template.cap]].ravel()) == {REGIONS.index("neck")}


def test_it_is_symmetric(source):
    template = source.template
    mirror = template.mirror
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_allclose(template.vertices[mirror], template.vertices * (-1, 1, 1), atol=0.1 / UNIT_MM)
    np.testing.assert_array_equal(mirrored_regions()[template.regions][mirror], template.regions)
    np.testing.assert_array_equal(mirror[template.anchors], template.anchors[anchor_mirror()])
    assert (template.vertices[template.anchors[:32:2], 0] < 0).all()


def test_regions_agree_with_the_published_ones(source, published):
    """At the vertices that the cut leaves; the published labels were drawn after a non-rigid registration."""
    arrays, template = load_ict_arrays(), source.template
    average = arrays["template"][: int(published["n_skin"])].astype(np.float64)
    placed = fit_similarity(average[arrays["landmarks68"]], template.vertices[template.landmarks]).apply(average)
    distance, vertex = NearestNeighbours(placed).query(template.vertices)
    kept = distance < 1e-6
    assert kept.sum() > 10_000
    assert (published["region"][vertex[kept]] == template.regions[kept]).mean() > 0.98


def test_anchors_lie_where_the_built_in_heads_do(source, template):
    away = np.linalg.norm(
        source.template.vertices[source.template.anchors] - template.vertices[template.anchors], axis=1
    )
    by_name = dict(zip(ANCHORS, away * UNIT_MM, strict=True))
    assert max(by_name.values()) < 10
    assert np.mean(list(by_name.values())) < 4
    assert len(set(source.template.anchors.tolist())) == 39


def test_the_face_lies_on_the_built_in_face(source, template):
    """The two averages differ by about 2 mm; the nostrils of this one are deep and left out."""
    for region in FACE_REGIONS:
        inside = source.template.in_regions(region)
        away = distance_to_surface(source.template.vertices[inside], template.mesh).distance * UNIT_MM
        assert np.median(away) < 2.5, region


def test_landmarks_lie_in_their_regions(source):
    names = np.array(REGIONS)[source.template.regions][source.template.landmarks]
    assert set(names[36:42]) == {"eye_R"}
    assert set(names[42:48]) == {"eye_L"}
    assert set(names[48:]) == {"mouth"}
    assert source.template.vertices[source.template.landmarks[:8], 0].max() < 0


def test_the_template_is_its_own_average(source):
    average = source.vertices(np.zeros((1, 100), np.float32))[0].astype(np.float64)
    similarity = subject_similarity(source, average)
    np.testing.assert_allclose(similarity.apply(average), source.template.vertices, atol=1e-6)
    assert 190 < 1 / similarity.scale < 230


def test_all_heads_lie_in_the_unit_ball(heads):
    assert np.linalg.norm(heads, axis=-1).max() < 0.9


def test_no_cap_pierces_the_skin(source, heads):
    cap = source.template.cap
    for head in heads[:8]:
        mesh = Mesh(head, source.template.triangles)
        middles, normals = head[mesh.faces[cap]].mean(1), mesh.face_normals()[cap]
        half_mm = 0.5 / UNIT_MM
        assert (winding_number(middles + half_mm * normals, mesh) < 0.5).all()
        assert (winding_number(middles - half_mm * normals, mesh) > 0.5).all()


def test_coefficients_are_standard_normal_and_clipped(source, people):
    assert people.dtype == np.float32
    assert np.abs(people).max() <= ict.LARGEST_COEFFICIENT
    assert abs(people.mean()) < 0.05
    assert 0.93 < people.std() < 1.03
    drawn = [source.sample_subject(np.random.default_rng(seed)).coefficients for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_identities_and_expressions_add_up(source, people):
    """On the skin; the films follow it in their own way."""
    skin = slice(0, 8000)
    smile = expression_weights(source, "smile", None)[None]
    neutral, smiling = source.vertices(people[:1])[0], source.vertices(people[:1], smile)[0]
    average = source.vertices(np.zeros((1, 100), np.float32))[0]
    average_smiling = source.vertices(np.zeros((1, 100), np.float32), smile)[0]
    np.testing.assert_allclose((smiling - neutral)[skin], (average_smiling - average)[skin], atol=1e-3)
    double = source.vertices(2 * people[:1])[0]
    np.testing.assert_allclose((double - average)[skin], 2 * (neutral - average)[skin], atol=2e-3)


def test_the_thirteen_expressions_are_here(source):
    assert list(source.expressions) == [name for name in EXPRESSIONS if name != "jaw_rotated"]
    assert source.expressions["cheek_puff"] == {
        "cheekPuffLeft": 1.0, "cheekPuffRight": 1.0, "mouthPressLeft": 0.4, "mouthPressRight": 0.4
    }  # fmt: skip
    assert source.expressions["mouth_open"] == {"jawOpen": 0.8}


@pytest.mark.parametrize("name", [name for name in EXPRESSIONS if name != "jaw_rotated"])
def test_an_expression_gives_a_sound_head(source, people, name):
    neutral = source.vertices(people[:1])[0]
    weights = expression_weights(source, name, np.random.default_rng(0))
    head = source.vertices(people[:1], weights[None])[0]
    mesh = Mesh(head, source.template.triangles)
    assert np.isfinite(head).all()
    assert mesh.volume() == pytest.approx(Mesh(neutral, mesh.faces).volume(), rel=0.06)
    moved = np.linalg.norm(head - neutral, axis=1)
    assert moved[source.template.in_regions("cranium")].max() < 12
    assert (3 < moved.max() < 50) == (name != "neutral")


def test_sides_are_the_subjects(source):
    average, still = source.template, np.zeros((1, 100), np.float32)
    for side, sign in (("Left", 1), ("Right", -1)):
        weights = np.zeros((1, len(source.unit_names)), np.float32)
        weights[0, source.unit_names.index(f"mouthSmile{side}")] = 1
        moved = np.linalg.norm(source.vertices(still, weights)[0] - source.vertices(still)[0], axis=1)
        assert sign * (moved @ average.vertices[:, 0]) / moved.sum() > 0.07


def test_eye_films_bulge_between_the_lids(source, heads):
    closing = source._closing
    for film in closing.eyes:
        lids = heads[:, np.concatenate([film.upper, film.lower])]
        bulge = heads[:, film.inner[len(film.inner) // 2, 1], 2] - np.median(lids[..., 2], axis=1)
        assert (bulge * UNIT_MM > 0).all()
        assert (bulge * UNIT_MM < 8).all()


def test_a_corpus_of_it_can_be_built(source, tmp_path):
    recipe = Recipe(
        source="ict", seed=1, train=2, expressions=("neutral", "mouth_open"), surface_points=64, distance_points=64
    )
    corpus = build_corpus(recipe, tmp_path / "ict")
    corpus.verify()
    assert corpus.records("train").tolist() == [0, 1, 2, 3]
    assert corpus.source is source
    neutral, opened, *_ = generate(recipe)
    chin = source.template.anchors[ANCHORS.index("chin")]
    assert opened.vertices[chin, 1] < neutral.vertices[chin, 1] - 0.05
    np.testing.assert_allclose(corpus.mesh(1).vertices, opened.vertices, atol=1e-5)


def test_a_bald_head_of_a_large_skull_is_not_taken_for_hair(environment):
    head = next(generate(Recipe("ict", seed=2026, train=1000), [24]))
    rng = np.random.default_rng([7, 24])
    skin = Mesh(head.similarity.inverse().apply(head.vertices), open_source("ict").template.skin.faces)
    found = align_scan(sample_surface(skin, 10000, rng=rng).points, alignment_target(), rng=rng)
    assert not found.hair
    assert found.similarity.angle_to(head.similarity) < 3
