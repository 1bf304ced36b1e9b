"""Control points: what is moved, what is refused, and that a head comes back where nothing moves."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from implicit3dmm.config import load_config
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.registered import RegisteredHeads
from implicit3dmm.editing.dragging import drag, drawn_moves, named_moves, steerable
from implicit3dmm.editing.registered import open_registered
from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.control import evaluate_control
from implicit3dmm.geometry.mesh import Mesh, write_mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.mesh_models.control import move_statistics, moves_towards
from implicit3dmm.mesh_models.model import MeshModel, load_network
from implicit3dmm.mesh_models.training import MeshRunConfig, MeshTrainer
from implicit3dmm.resources import config_file


@pytest.fixture(scope="module")
def heads() -> Heads:
    recipe = Recipe(seed=4, train=4, test=3, expressions=("neutral", "smile"))
    return Heads(recipe, name="people")


@pytest.fixture(scope="module")
def model(heads, tmp_path_factory) -> MeshModel:
    """A network that has learnt next to nothing, but follows control points."""
    folder, threads = tmp_path_factory.mktemp("run"), torch.get_num_threads()
    settings = ["training.steps=3", "network.learning.task=control"]
    MeshTrainer(load_config(MeshRunConfig, config_file("", "lamm/tiny"), settings), heads, folder).train()
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    return load_network(folder / "model.safetensors")


@pytest.fixture(scope="module")
def people(heads) -> RegisteredHeads:
    return RegisteredHeads.of(heads, "test")


def test_no_move_gives_the_head_back_and_a_move_changes_its_region_most(model, people):
    head = people.vertices[0]
    assert drag(model, head, np.zeros((36, 3))) is head
    moved = np.linalg.norm(drag(model, head, named_moves(model.topology, {"nose": (0, 0, 5)})) - head, axis=1)
    nose = model.topology.labels == 0
    assert moved[nose].mean() > 3 * moved[~nose].mean()
    away = 200 * NearestNeighbours(head[nose].astype(np.float64)).query(head.astype(np.float64))[0]
    assert not moved[away > 10].any()


def test_moves_are_named_by_region_or_by_one_point_and_add_up(model):
    moves = 200 * named_moves(model.topology, {"nose": (0, 0, 5), "nose/1": (1, 0, 0), "mouth/2": (0, -3, 0)})
    np.testing.assert_allclose(moves[:3], [[0, 0, 5], [1, 0, 5], [0, 0, 5]], atol=1e-12)
    np.testing.assert_allclose(moves[5], [0, -3, 0], atol=1e-12)
    assert np.count_nonzero(moves.any(1)) == 4


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"beard": (0, 0, 1)}, "no region 'beard'; there are nose, mouth"),
        ({"nose/3": (0, 0, 1)}, "no control point nose/3; nose has nose/0 to nose/2"),
        ({"nose/-1": (0, 0, 1)}, "no control point nose/-1"),
        ({"nose": (0, 1)}, r"nose moves by \[0, 1\]; three numbers in mm were expected"),
        ({"nose": (0, 1, np.inf)}, "three numbers in mm were expected"),
    ],
)
def test_moves_that_mean_nothing_are_refused(model, moves, message):
    with pytest.raises(InputError, match=message):
        named_moves(model.topology, moves)


def test_a_rigidly_moved_copy_of_the_head_moves_no_control_point(model, people):
    head = people.vertices[0].astype(np.float64)
    elsewhere = Similarity(1.0, Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), np.array([0.05, 0.02, -0.1]))
    moves = moves_towards(model.topology, head, elsewhere.apply(head), model.topology.names)
    assert np.abs(moves).max() * 200 < 1e-9
    other = moves_towards(model.topology, head, people.vertices[2], ["nose"])
    assert other[:3].any(1).all()
    assert not other[3:].any()


def test_draws_have_the_spread_of_the_pairs_and_no_temperature_gives_their_mean(model, heads):
    data = RegisteredHeads.of(heads, "train")
    mean, covariance = move_statistics(model.topology, data)
    np.testing.assert_allclose(model.network.move_covariance.numpy(), covariance, rtol=1e-4, atol=1e-9)
    still = drawn_moves(model, ["nose"], 1, temperature=0.0, seed=0)[0]
    np.testing.assert_allclose(still[:3], mean[:3], atol=1e-6)
    drawn = drawn_moves(model, ["nose", "chin"], 4000, temperature=0.5, seed=1)
    assert drawn[:, :3].std(0).ravel() == pytest.approx(0.5 * np.sqrt(np.diag(covariance)[:9]), rel=0.1)
    assert not drawn[:, 3:18].any()
    with pytest.raises(InputError, match=r"count 0, temperature 1\.0, seed 0: give at least 1"):
        drawn_moves(model, ["nose"], 0, temperature=1.0, seed=0)


def test_a_registered_mesh_is_found_in_any_frame_and_unit_and_others_are_refused(model, heads, people, tmp_path):
    triangles, frame = heads.source.template.triangles, Similarity(35.0, np.eye(3), np.array([3.0, -2.0, 1.0]))
    write_mesh(tmp_path / "head.ply", Mesh(frame.apply(people.vertices[0].astype(np.float64)), triangles))
    opened = open_registered(tmp_path / "head.ply", model)
    assert np.abs(opened.vertices - people.vertices[0]).max() * 200 < 0.01
    own = opened.mesh(model, opened.vertices)
    np.testing.assert_allclose(own.vertices, frame.apply(people.vertices[0]), atol=1e-3)
    write_mesh(tmp_path / "other.ply", Mesh(people.vertices[0][:100], triangles[(triangles < 100).all(1)]))
    with pytest.raises(InputError, match=r"other.ply has vertices of shape \(\d+, 3\); the model has \(14642, 3\)"):
        open_registered(tmp_path / "other.ply", model)


def test_a_network_that_follows_no_points_is_refused(model):
    network = type(model.network)(load_config(MeshRunConfig, config_file("", "lamm/tiny")).network, model.topology)
    with pytest.raises(InputError, match="plain follows no control points; give a LAMM that lamm/control trained"):
        steerable(MeshModel(network, {"name": "plain"}))


def test_errors_of_control_and_motions_of_edits_are_those_of_the_network(model, heads, people, tmp_path):
    figures = evaluate_control(heads, [model], folder=tmp_path, regions=("nose",))
    errors = []
    for row in (0, 2, 4):
        back = model.decode(model.encode(people.vertices[[row]]))[0]
        errors.append(np.linalg.norm(back - people.vertices[row], axis=1).mean() * 200)
    own = figures.followed[model.name]["identity"]
    assert own.given_back.mean == pytest.approx(np.mean(errors), rel=1e-4)
    assert own.given_back.count == 3
    nose = figures.local[model.name]["nose"]
    assert nose.inside.mean > nose.outside.mean
    assert nose.confined.mean < 0.5 * nose.ratio.mean
    drawn = figures.drawn[model.name]["nose"]
    assert drawn.inside.count == 3
    assert drawn.inside.mean > drawn.outside.mean
    assert drawn.from_input.mean == pytest.approx(own.given_back.mean, rel=0.2)
    text = (tmp_path / "summary.md").read_text()
    assert "Regions drawn anew, 20 times each" in text
    assert "| token    | nose | mouth | eye_L |" in text
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved["corrupted"][model.name]["chin"]["regions"].keys() == set(model.topology.names)
    with Image.open(tmp_path / "locality.png") as picture:
        assert picture.height == 664


def test_heads_of_another_topology_are_followed_by_no_network(heads, model, tmp_path):
    topology = replace(model.topology, labels=model.topology.labels[1:])
    network = type(model.network)(load_config(MeshRunConfig, config_file("", "lamm/tiny")).network, topology)
    with pytest.raises(InputError, match=r"a head of people has vertices of shape \(14642, 3\); the model has \(14641"):
        evaluate_control(heads, [MeshModel(network, {"name": "other"})], folder=tmp_path)
