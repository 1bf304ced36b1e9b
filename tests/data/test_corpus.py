import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from implicit3dmm.data import building
from implicit3dmm.data.building import build_corpus
from implicit3dmm.data.corpus import REST, SHARD_ARRAYS, Corpus
from implicit3dmm.data.quantisation import QUANTUM, from_octahedron, to_octahedron
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.geometry.distance import distance_to_surface, signed_distance
from implicit3dmm.geometry.neighbours import NearestNeighbours

SMALL = Recipe(
    seed=3, train=3, validation=1, test=1, expressions=("neutral", "smile"), surface_points=96, distance_points=128
)


@pytest.fixture
def small_shards(monkeypatch):
    """Two subjects a shard, so that the small corpus has three shards."""
    monkeypatch.setattr(building, "SUBJECTS_PER_SHARD", 2)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    """Folder of the small corpus, built in one go; not to be written to."""
    folder = tmp_path_factory.mktemp("reference") / "small"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "SUBJECTS_PER_SHARD", 2)
        build_corpus(SMALL, folder)
    return folder


@pytest.fixture
def copy(reference, tmp_path, small_shards) -> Path:
    """A copy of the small corpus to damage."""
    return shutil.copytree(reference, tmp_path / "copy")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def whole(corpus: Corpus, records: torch.Tensor):
    """All samples of some records."""
    count = corpus.recipe.surface_points, corpus.recipe.distance_points
    return corpus.samples(records, count, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def samples(tiny_corpus):
    return whole(tiny_corpus, torch.arange(8))


class TestSamples:
    def test_shapes_and_types(self, samples):
        shapes = {name: tuple(field.shape) for name, field in samples._asdict().items()}
        assert shapes == {
            "surface": (8, 1024, 3),
            "normals": (8, 1024, 3),
            "neutral": (8, 1024, 3),
            "stages": (8, 2, 2, 0, 3),
            "parts": (8, 0),
            "points": (8, 1024, 3),
            "distances": (8, 1024),
        }
        assert {field.dtype for field in samples if field.numel()} == {torch.float32}

    @pytest.mark.parametrize("record", [0, 6])
    def test_surface_samples_lie_on_the_surface(self, tiny_corpus, samples, record):
        away = distance_to_surface(samples.surface[record].double().numpy(), tiny_corpus.mesh(record)).distance
        assert away.max() < 1.5 * QUANTUM

    @pytest.mark.parametrize("record", [0, 7])
    def test_distances_are_true_at_the_stored_points(self, tiny_corpus, samples, record):
        mesh = tiny_corpus.mesh(record)
        points = np.round(samples.points[record].double().numpy() / QUANTUM) * QUANTUM
        expected = signed_distance(points, mesh).distance
        assert np.abs(samples.distances[record].numpy() - expected).max() < 0.51 * QUANTUM

    def test_normals_are_unit_and_look_outwards(self, tiny_corpus, samples):
        np.testing.assert_allclose(samples.normals.norm(dim=-1), 1, atol=1e-6)
        step = 0.002
        outside = samples.surface[0] + step * samples.normals[0]
        distance = signed_distance(outside.double().numpy(), tiny_corpus.mesh(0)).distance
        assert (distance > 0.5 * step).mean() > 0.95

    def test_regions_are_those_of_the_nearest_vertices(self, tiny_corpus, template, samples):
        stored = np.load(tiny_corpus.folder / "shard-0000" / "surface_regions.npy")[0]
        _, nearest = NearestNeighbours(tiny_corpus.mesh(0).vertices).query(samples.surface[0].double().numpy())
        assert (template.regions[nearest] == stored).mean() > 0.95

    def test_half_the_distances_are_near_and_a_quarter_fill_the_ball(self, samples):
        near = samples.distances.abs() < 0.03
        assert 0.55 < near.float().mean() < 0.85
        far = samples.points[samples.distances > 0.2]
        assert far.norm(dim=-1).max() < 1 + 2 * QUANTUM
        assert (far.norm(dim=-1) > 0.9).float().mean() > 0.2

    def test_points_are_shuffled(self, samples):
        """Any block is like the whole: a batch may read one."""
        for field in (samples.surface[..., 1], samples.points[..., 1], samples.distances.abs()):
            first, second = field.chunk(2, dim=1)
            assert abs(first.mean() - second.mean()) < 0.03

    def test_blocks_are_contiguous_parts_of_the_stored_arrays(self, tiny_corpus, samples):
        drawn = tiny_corpus.samples(torch.tensor([3, 5]), (64, 32), torch.Generator().manual_seed(1))
        lengths = {"surface": 64, "normals": 64, "neutral": 64, "points": 32, "distances": 32}
        for name, length in lengths.items():
            part, everything = getattr(drawn, name), getattr(samples, name)
            for row, record in enumerate((3, 5)):
                windows = everything[record].unfold(0, length, 1)
                windows = windows.movedim(-1, 1)
                assert (windows == part[row]).flatten(1).all(1).sum() == 1

    def test_equal_seeds_draw_equal_blocks(self, tiny_corpus):
        records = torch.tensor([0, 1])
        draws = [tiny_corpus.samples(records, (16, 16), torch.Generator().manual_seed(s)) for s in (4, 4, 5)]
        assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
        assert not torch.equal(draws[0].surface, draws[2].surface)

    def test_points_and_distances_stay_together(self, tiny_corpus, samples):
        drawn = tiny_corpus.samples(torch.tensor([2]), (8, 8), torch.Generator().manual_seed(6))
        at = (samples.points[2][:, None] == drawn.points[0]).all(-1).int().argmax(0)
        assert torch.equal(samples.distances[2][at], drawn.distances[0])

    def test_more_points_than_there_are_is_refused(self, tiny_corpus):
        with pytest.raises(InputError, match="1025 points of each head asked for, the corpus has 1024"):
            tiny_corpus.samples(torch.tensor([0]), (1025, 1), torch.Generator())


class TestTables:
    def test_splits(self, tiny_corpus):
        splits = [tiny_corpus.records(split).tolist() for split in ("train", "validation", "test")]
        assert splits == [[0, 1, 2, 3, 4, 5], [6], [7]]

    def test_records_count_subjects_times_expressions(self, reference, small_shards):
        corpus = Corpus(reference)
        assert corpus.record_subject.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert [corpus.recipe.expressions.index(str(name)) for name in corpus.record_expression] == [0, 1] * 5
        assert corpus.records("test").tolist() == [8, 9]

    @pytest.mark.parametrize("record", [0, 5, 9])
    def test_a_record_is_the_head_of_its_recipe(self, reference, small_shards, record):
        corpus = Corpus(reference)
        head, template = corpus.head(record), corpus.source.template
        assert (head.subject, head.expression) == (record // 2, SMALL.expressions[record % 2])
        np.testing.assert_array_equal(corpus.record_units[record], head.units)
        np.testing.assert_allclose(corpus.similarities[head.subject], head.similarity.matrix(), atol=1e-6)
        np.testing.assert_allclose(corpus.anchors[record], head.neutral[template.anchors], atol=1e-6)
        np.testing.assert_allclose(corpus.landmarks[record], head.vertices[template.landmarks], atol=1e-6)
        assert corpus.about[head.subject] == head.person.about
        surface = whole(corpus, torch.tensor([record])).surface[0].double().numpy()
        assert distance_to_surface(surface, corpus.mesh(record)).distance.max() < 1.5 * QUANTUM


class TestBuilding:
    def test_equal_recipes_give_equal_files(self, reference, tmp_path, small_shards):
        build_corpus(SMALL, tmp_path / "again")
        assert contents(tmp_path / "again") == contents(reference)

    def test_a_subject_is_the_same_in_a_larger_corpus(self, reference, tmp_path, small_shards):
        one = build_corpus(replace(SMALL, train=1, validation=0, test=0), tmp_path / "one")
        pairs = zip(whole(one, torch.arange(2)), whole(Corpus(reference), torch.arange(2)), strict=True)
        assert all(torch.equal(alone, within) for alone, within in pairs)

    def test_a_finished_corpus_is_opened_as_it_is(self, copy, monkeypatch):
        monkeypatch.setattr(building, "generate", lambda *_: pytest.fail("built again"))
        assert build_corpus(SMALL, copy).records("train").tolist() == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("done", [1, 4])
    def test_a_build_that_is_stopped_goes_on_to_the_same_bytes(self, reference, tmp_path, small_shards, done):
        def stopping(subjects):
            for number, subject in enumerate(subjects):
                if number == done:
                    raise KeyboardInterrupt
                yield subject

        with pytest.raises(KeyboardInterrupt):
            build_corpus(SMALL, tmp_path / "stopped", progress=stopping)
        assert len(list((tmp_path / "stopped").glob("shard-*"))) == done // 2
        with pytest.raises(InputError, match="no finished corpus"):
            Corpus(tmp_path / "stopped")
        build_corpus(SMALL, tmp_path / "stopped")
        assert contents(tmp_path / "stopped") == contents(reference)

    def test_a_lost_shard_is_made_again(self, reference, copy):
        shutil.rmtree(copy / "shard-0001")
        (copy / "manifest.json").unlink()
        build_corpus(SMALL, copy)
        assert contents(copy) == contents(reference)

    def test_what_a_kill_leaves_behind_is_no_part_of_the_corpus(self, reference, copy):
        (copy / "manifest.json").unlink()
        shutil.move(copy / "shard-0002", copy / ".shard-0002")
        (copy / ".shard-0002" / "distances.npy").write_bytes(b"half")
        (copy / ".records-a1b2.npz").write_bytes(b"half")
        build_corpus(SMALL, copy).verify()
        assert contents(copy) == contents(reference) | {".records-a1b2.npz": b"half"}

    def test_the_progress_counts_subjects(self, tmp_path):
        seen = []

        def watching(subjects):
            for subject in subjects:
                seen.append(subject)
                yield subject

        build_corpus(
            replace(SMALL, train=2, validation=0, test=0, expressions=("neutral",)), tmp_path, progress=watching
        )
        assert len(seen) == 2

    def test_a_recipe_out_of_range_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(InputError, match="not all 0"):
            build_corpus(replace(SMALL, train=0, validation=0, test=0), tmp_path / "none")
        assert not (tmp_path / "none").exists()

    def test_a_folder_with_other_things_is_refused_and_kept(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(InputError, match="not empty and holds no corpus"):
            build_corpus(SMALL, tmp_path)
        assert contents(tmp_path) == {"letter.txt": b"dear"}

    def test_a_folder_of_another_recipe_is_refused(self, copy, reference):
        with pytest.raises(InputError, match="corpus of another recipe"):
            build_corpus(replace(SMALL, seed=4), copy)
        assert contents(copy) == contents(reference)

    def test_a_damaged_claim_is_refused(self, copy):
        (copy / "recipe.json").write_text("{")
        with pytest.raises(InputError, match=r"recipe\.json is damaged"):
            build_corpus(SMALL, copy)

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match="cannot write into"):
            build_corpus(SMALL, tmp_path / "file")


class TestDamage:
    def test_a_sound_corpus_verifies(self, reference, small_shards):
        Corpus(reference).verify()

    @pytest.mark.parametrize(
        "name", ["subjects.npz", "records.npz", *(f"shard-0001/{key}.npy" for key in SHARD_ARRAYS)]
    )
    def test_one_changed_byte_is_found(self, copy, name):
        corpus = Corpus(copy)
        data = bytearray((copy / name).read_bytes())
        data[-1] ^= 1
        (copy / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} is not the file that was written"):
            corpus.verify()

    def test_a_missing_file_is_found(self, copy):
        corpus = Corpus(copy)
        (copy / "shard-0002" / "distances.npy").unlink()
        with pytest.raises(InputError, match=r"shard-0002/distances\.npy"):
            corpus.verify()

    @pytest.mark.parametrize("keep", [0, 5, 500])
    @pytest.mark.parametrize("name", ["subjects.npz", "records.npz", "shard-0000/distances.npy"])
    def test_a_truncated_file_is_refused_when_it_is_opened(self, copy, name, keep):
        (copy / name).write_bytes((copy / name).read_bytes()[:keep])
        with pytest.raises(InputError, match=r"cannot be read .*; build the corpus again"):
            Corpus(copy)

    @pytest.mark.parametrize(
        ("key", "value"), [("version", 2), ("version", None), ("format", "another"), ("format", None)]
    )
    def test_another_format_or_version_is_refused(self, copy, key, value):
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(InputError, match="another format or version"):
            Corpus(copy)

    @pytest.mark.parametrize("text", ["", "{", "[]", '"text"'])
    def test_a_damaged_manifest_is_refused(self, copy, text):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json is damaged"):
            Corpus(copy)

    def test_a_folder_without_a_corpus_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"no finished corpus; make one with 'implicit3dmm corpus"):
            Corpus(tmp_path)


def test_the_manifest_says_what_it_is(reference):
    manifest = json.loads((reference / "manifest.json").read_text())
    assert manifest["recipe"] == json.loads((reference / "recipe.json").read_text())
    assert manifest["source_version"] == open_source("makehuman").version
    assert "CC0" in manifest["licence"]
    assert manifest["quantum"] == QUANTUM
    assert len(manifest["files"]) == 2 + 3 * len((*SHARD_ARRAYS, REST))  # its heads have expressions


class TestOctahedron:
    def angles(self, normals: np.ndarray) -> np.ndarray:
        back = from_octahedron(to_octahedron(normals)).double().numpy()
        sine = np.linalg.norm(np.cross(back, normals), axis=1)
        return np.degrees(np.arctan2(sine, (back * normals).sum(1)))

    def test_any_direction_comes_back(self):
        normals = np.random.default_rng(0).normal(size=(20_000, 3))
        assert self.angles(normals / np.linalg.norm(normals, axis=1, keepdims=True)).max() < 0.01

    def test_the_edges_of_the_fold_come_back(self):
        steps = np.stack(np.meshgrid(*[[-1.0, 0.0, 1.0]] * 3), -1).reshape(-1, 3)
        steps = steps[np.abs(steps).sum(1) > 0]
        almost_flat = np.concatenate([steps, steps * (1, 1, 1e-6), steps * (1e-6, 1, -1)])
        lengths = np.linalg.norm(almost_flat, axis=1)
        almost_flat = almost_flat[lengths > 1e-3] / lengths[lengths > 1e-3, None]
        assert self.angles(almost_flat).max() < 0.01
