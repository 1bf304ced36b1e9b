"""A folder in LAMM's layout: spheres that are read, brought to canonical units, and trained on; and what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from implicit3dmm.config import load_config
from implicit3dmm.data.corpus import open_heads
from implicit3dmm.data.lamm_layout import LAMMFolder, is_lamm_folder
from implicit3dmm.editing.registered import open_registered
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.mesh_models.model import load_network
from implicit3dmm.mesh_models.topology import Topology
from implicit3dmm.mesh_models.training import MeshRunConfig, MeshTrainer
from implicit3dmm.resources import config_file

pytestmark = pytest.mark.usefixtures("torch_as_it_was")

SPHERE = trimesh.creation.icosphere(subdivisions=2)
PLACES, FACES = np.asarray(SPHERE.vertices), np.asarray(SPHERE.faces)
HEIGHT = np.digitize(PLACES[:, 1], [-0.5, 0.3])
REGIONS = {number: np.flatnonzero(np.equal(HEIGHT, number)) for number in (2, 0, 1)}
CONTROLS = {0: REGIONS[0][:2].tolist(), 2: REGIONS[2][:1].tolist()}


def dump(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five deformed spheres in decimetres."""
    made = tmp_path / "meshes"
    (made / "heads").mkdir(parents=True)
    write_mesh(made / "template.obj", Mesh(PLACES, FACES))
    names = [f"heads/{number}.{suffix}" for number, suffix in enumerate(("obj", "ply", "obj", "obj"))]
    for number, name in enumerate(names):
        write_mesh(made / name, Mesh(PLACES * (1 + 0.1 * number), FACES))
    np.save(made / "heads/4.npy", PLACES + 0.1 * np.sin(3 * PLACES[:, [1, 2, 0]]))
    (made / "paths_train.csv").write_text("".join(f"{name}\n" for name in [*names, "heads/4.npy"]))
    dump(made / "mean_std.pickle", {"mean": PLACES, "std": np.ones_like(PLACES), "mm_mult": np.float64(100.0)})
    dump(made / "region_ids.pickle", REGIONS)
    return made


def config(*overrides: str) -> MeshRunConfig:
    return load_config(MeshRunConfig, config_file("", "lamm/tiny"), ["training.steps=3", *overrides])


def with_controls(folder: Path, controls: object) -> Path:
    (folder / "manipulation.yaml").write_text(yaml.safe_dump({"MODEL": {"dim": 512, "control_vertices": controls}}))
    return folder


def test_meshes_come_in_canonical_units_and_are_nobody_that_is_known(folder):
    assert is_lamm_folder(folder)
    data = LAMMFolder(folder).registered()
    assert len(data) == 5
    np.testing.assert_allclose(data.vertices[1], PLACES * 1.1 * 100 / 200, rtol=1e-6)
    np.testing.assert_array_equal(data.rest, np.arange(5))
    assert {name: set(values.tolist()) for name, values in data.labels.items()} == {
        "identity": {-1},
        "expression": {-1},
    }
    assert len(LAMMFolder(folder).registered(subjects=2)) == 2


def test_regions_keep_their_order_and_control_points_are_given_or_spread(folder):
    spread = Topology.of_folder(LAMMFolder(folder), controls=3)
    assert spread.names == ("2", "0", "1")
    for number, name in enumerate((2, 0, 1)):
        np.testing.assert_array_equal(spread.regions[number], REGIONS[name])
    assert np.bincount(spread.control_regions).tolist() == [3, 3, 3]
    assert not spread.cap.any()
    given = Topology.of_folder(LAMMFolder(with_controls(folder, CONTROLS)), controls=3)
    assert given.controls.tolist() == [*CONTROLS[2], *CONTROLS[0]]


@pytest.mark.parametrize(
    "overrides", [(), ("network.learning.task=control", "network.learning.pairs=[identity,region]")]
)
def test_a_network_learns_from_the_folder(folder, tmp_path, overrides):
    MeshTrainer(config(*overrides), LAMMFolder(folder), tmp_path / "run").train()
    model = load_network(tmp_path / "run/model.safetensors")
    assert model.topology.names == ("2", "0", "1")
    assert model.info["meshes"] == "meshes"
    assert model.info["mm_per_unit"] == 100.0
    assert "recipe" not in model.info
    head = LAMMFolder(folder).registered().vertices[:1]
    assert np.abs(model.decode(model.encode(head)) - head).mean() < 0.2


def test_what_only_built_in_heads_have_is_one_clear_line(folder, tmp_path):
    expressive = config("network.learning.task=control", "network.learning.pairs=[identity,expression,region]")
    message = r"no head is known to show one; give network\.learning\.pairs=\[identity,region\]"
    with pytest.raises(InputError, match=message):
        MeshTrainer(expressive, LAMMFolder(folder), tmp_path / "run")
    with pytest.raises(InputError, match="meshes is in LAMM's layout, which only 'implicit3dmm train' of networks"):
        open_heads(folder)
    trainer = MeshTrainer(config(), LAMMFolder(folder), tmp_path / "own")
    with pytest.raises(InputError, match="was trained on meshes whose frame is not known"):
        open_registered(folder / "heads/1.ply", trainer.model())
    with pytest.raises(InputError, match="meshes has 5 training subjects; expected 9"):
        MeshTrainer(config("training.subjects=9"), LAMMFolder(folder), tmp_path / "many")


def test_a_region_that_touches_no_other_is_refused_before_the_training(folder, tmp_path):
    shifted = np.concatenate([PLACES, PLACES[:4] + 5.0])
    faces = np.concatenate([FACES, [[162, 163, 164], [163, 164, 165]]])
    for path in [folder / "template.obj", *(folder / "heads").glob("*.*")]:
        path.unlink()
    write_mesh(folder / "template.obj", Mesh(shifted, faces))
    write_mesh(folder / "heads/0.obj", Mesh(shifted, faces))
    (folder / "paths_train.csv").write_text("heads/0.obj\nheads/0.obj\n")
    dump(folder / "region_ids.pickle", REGIONS | {"eye": [162, 163, 164, 165]})
    with pytest.raises(InputError, match="region eye has 0 vertices beside other regions; at least 3 are needed"):
        MeshTrainer(config(), LAMMFolder(folder), tmp_path / "run")


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        (REGIONS | {1: REGIONS[1][1:]}, r"vertices \d+ lie in no region; every vertex has to lie in exactly one"),
        (REGIONS | {0: np.append(REGIONS[0], REGIONS[1][0])}, "lie in more than one region"),
        (REGIONS | {1: np.append(REGIONS[1], 162)}, "region 1 has vertices 162; the mesh has vertices 0 to 161"),
        (REGIONS | {1: REGIONS[1] + 0.0}, r"region_ids\.pickle, region 1 is no list of vertices"),
        (REGIONS | {7: []}, r"region_ids\.pickle, region 7 is no list of vertices"),
        ({}, r"region_ids\.pickle holds no regions"),
        (np.arange(3), r"region_ids\.pickle holds no regions"),
    ],
)
def test_regions_that_do_not_part_the_mesh_are_refused(folder, regions, message):
    dump(folder / "region_ids.pickle", regions)
    with pytest.raises(InputError, match=message):
        Topology.of_folder(LAMMFolder(folder), controls=1)


def test_a_list_of_regions_is_numbered(folder):
    dump(folder / "region_ids.pickle", [REGIONS[number].tolist() for number in (0, 1, 2)])
    assert Topology.of_folder(LAMMFolder(folder), controls=1).names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("controls", "message"),
    [
        ({0: REGIONS[1][:1].tolist()}, "lie outside their region 0; take others"),
        ({9: [1]}, "control points of '9', which is no region; there are 2, 0, 1"),
        ({0: "all"}, "region 0 is no list of vertices"),
        ({}, r"manipulation\.yaml has no MODEL\.control_vertices"),
    ],
)
def test_control_points_that_are_none_are_refused(folder, controls, message):
    with pytest.raises(InputError, match=message):
        Topology.of_folder(LAMMFolder(with_controls(folder, controls)), controls=1)


@pytest.mark.parametrize("value", [{}, {"mm_mult": 0}, {"mm_mult": "1000"}, {"mm_mult": True}, 1000.0])
def test_a_scale_has_to_be_told(folder, value):
    dump(folder / "mean_std.pickle", value)
    with pytest.raises(InputError, match=r"has no 'mm_mult' above 0, .* add it: 1 for mm, 1000 for m"):
        LAMMFolder(folder)


def test_files_that_are_missing_or_of_other_sizes_are_named(folder):
    write_mesh(folder / "heads/2.obj", Mesh(PLACES[:12], FACES[(FACES < 12).all(1)]))
    with pytest.raises(InputError, match=r"2\.obj has 12 vertices; the template has 162; register it first"):
        LAMMFolder(folder).registered()
    (folder / "heads/2.obj").unlink()
    with pytest.raises(InputError, match=r"2\.obj does not exist"):
        LAMMFolder(folder).registered()
    np.save(folder / "heads/4.npy", np.full_like(PLACES, np.nan))
    (folder / "paths_train.csv").write_text("heads/4.npy\n")
    with pytest.raises(InputError, match=r"4\.npy has vertices that are not finite numbers"):
        LAMMFolder(folder).registered()
    for name, message in (
        ("paths_train.csv", r"cannot read .*paths_train\.csv"),
        ("mean_std.pickle", r"cannot read .*mean_std\.pickle"),
        ("template.obj", r"has no template\.obj; add one of its meshes by that name"),
    ):
        (folder / name).unlink()
        with pytest.raises(InputError, match=message):
            LAMMFolder(folder)


class Calls:
    def __init__(self, function, *given):
        self.call = function, given

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("name", ["region_ids.pickle", "mean_std.pickle"])
def test_a_malicious_pickle_is_refused_and_not_run(folder, name):
    dump(folder / name, {0: Calls(os.system, f"touch {folder / 'touched'}")})
    with pytest.raises(InputError, match=rf"{name} asks for posix\.system, .* was not run"):
        LAMMFolder(folder)
    assert not (folder / "touched").exists()
