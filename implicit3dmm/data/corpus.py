"""A corpus on disk: the samples that training reads, as memory-mapped arrays.

    manifest.json     recipe, source version, licence, quantum, counts, checksums
    subjects.npz      coefficients, similarities to the canonical frame, splits, what is known of each
    records.npz       subject, expression, unit weights, landmarks and, at rest, anchors of each record; with
                      composites its donors and keypoints
    shard-0000/       surface_points.npy, surface_normals.npy, surface_regions.npy, distance_points.npy, distances.npy,
                      surface_neutral.npy where the recipe has expressions, and surface_stages.npy and
                      surface_parts.npy where it has composites

Coordinates and distances are int16 multiples of 1/30000 canonical unit (6.7 micrometres). Points are shuffled once,
when they are written, so that a training batch reads one contiguous block of each record.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from implicit3dmm.config import from_mapping, load_config
from implicit3dmm.data.composites import keypoint_vertices, vertex_parts
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.lamm_layout import is_lamm_folder
from implicit3dmm.data.npz import read_npz
from implicit3dmm.data.quantisation import dequantised, from_octahedron
from implicit3dmm.data.recipe import Recipe
from implicit3dmm.errors import InputError
from implicit3dmm.heads.template import ALL_PARTS
from implicit3dmm.resources import config_file

FORMAT = "implicit3dmm-corpus"
FORMAT_VERSION = 1

SHARD_ARRAYS = ("surface_points", "surface_normals", "surface_regions", "distance_points", "distances")
COMPOSITE_COLUMNS = ("donors", "keypoints")
"""What is known of each record of a corpus with composites."""
STAGES = ("surface_stages", "surface_parts")
"""Where each surface sample lies on the way to the template, and its part; with composites only."""
REST = "surface_neutral"
"""Where each surface sample lies on the subject's neutral head; a corpus of neutral heads has no such array."""


class Samples(NamedTuple):
    """Points of a batch of records, canonical units."""

    surface: Float[Tensor, "b n 3"]
    normals: Float[Tensor, "b n 3"]
    neutral: Float[Tensor, "b n 3"]
    """Where the surface points lie on the subjects' neutral heads."""
    stages: Float[Tensor, "b 2 2 n 3"]
    """Where the surface points are on the way to the template, see `composites.settle_remainder`; none where the corpus
    has no composites."""
    parts: Int[Tensor, "b n"]
    """The part that each of them belongs to, as its place in `composites.ALL_PARTS`."""
    points: Float[Tensor, "b m 3"]
    distances: Float[Tensor, "b m"]


class Corpus(Heads):
    """Reads a corpus folder that `build_corpus` made: the heads of a recipe, with samples of each."""

    def __init__(self, folder: str | Path):
        """Opens the folder.

        Raises:
            InputError: it is no corpus, of another version, or unfinished.
        """
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        recipe = from_mapping(Recipe, manifest["recipe"], where=str(self.folder / "manifest.json"))
        super().__init__(recipe, name=self.folder.resolve().name)
        self.checksums: dict[str, str] = manifest["files"]
        subjects = self._read_table("subjects", ("similarities", "about"))
        self.similarities = subjects["similarities"]
        self.about = [json.loads(str(text)) for text in subjects["about"]]
        columns = ("expression", "units", "anchors", "landmarks", *(COMPOSITE_COLUMNS if recipe.swaps else ()))
        records = self._read_table("records", columns)
        self.record_expression = records["expression"]
        self.record_units = records["units"]
        self.anchors = torch.from_numpy(records["anchors"])
        self.landmarks = torch.from_numpy(records["landmarks"])
        self._donors, self._keypoints = (records.get(name) for name in COMPOSITE_COLUMNS)
        self._shards = [self._open_shard(name) for name in manifest["shards"]]
        self._records_per_shard = len(self._shards[0]["distances"])

    @property
    def neutral(self) -> Bool[Tensor, " r"]:
        """Which records show no expression."""
        return torch.from_numpy(~self.record_units.any(axis=1))

    def units(self, names: Sequence[str]) -> Float[Tensor, "r d"]:
        """Weights of the expression units `names` in each record; zero for those that the source lacks.

        Raises:
            InputError: a record moves a unit that is not among `names`.
        """
        known = {name: self.record_units[:, column] for column, name in enumerate(self.source.unit_names)}
        missing = [name for name, weights in known.items() if weights.any() and name not in names]
        if missing:
            raise InputError(
                f"{self.name} moves the units {', '.join(missing)}, which the field's config does not name; add them "
                "to its units"
            )
        zero = np.zeros(len(self.record_units), np.float32)
        return torch.from_numpy(np.stack([known.get(name, zero) for name in names], axis=1).astype(np.float32))

    @property
    def whole(self) -> Bool[Tensor, " r"]:
        """Which records show one subject, and are no composites."""
        return torch.tensor(self.recipe.whole).repeat(self.recipe.subjects)

    @property
    def donors(self) -> dict[str, Int[Tensor, " r"]]:
        """Number of the subject that each part of each record is of, by part."""
        if self._donors is None:
            return {part: self.record_subject for part in ALL_PARTS}
        return dict(zip(ALL_PARTS, torch.from_numpy(self._donors).T, strict=True))

    @property
    def keypoints(self) -> Float[Tensor, "r 2 2 107 3"]:
        """Anchors and landmarks of the records on the way to the template, see `composites.settle_remainder`; a recipe
        without composites has none, (r, 2, 2, 0, 3)."""
        if self._keypoints is None:
            return torch.zeros(len(self.record_subject), 2, 2, 0, 3)
        return torch.from_numpy(self._keypoints)

    @property
    def keypoint_parts(self) -> Int[Tensor, " k"]:
        """The part that each keypoint belongs to, as its place in `composites.ALL_PARTS`; none without composites."""
        if not self.recipe.swaps:
            return torch.zeros(0, dtype=torch.long)
        return torch.from_numpy(vertex_parts(self.source)[keypoint_vertices(self.source.template)]).long()

    @property
    def members(self) -> dict[int, "Corpus"]:
        """The corpora that this one is made of, by the number of their first subject, as `Corpora` has them."""
        return {0: self}

    def samples(self, records: Int[Tensor, " b"], count: tuple[int, int], generator: torch.Generator) -> Samples:
        """Draws a block of surface points and one of signed-distance points from each record.

        Args:
            records: which records.
            count: surface points and signed-distance points of each.
            generator: chooses the blocks.
        """
        blocks = [self._blocks(int(record), count, generator) for record in records]
        surface, normals, neutral, stages, parts, points, distances = map(np.stack, zip(*blocks, strict=True))
        return Samples(
            dequantised(surface),
            from_octahedron(normals),
            dequantised(neutral),
            dequantised(stages).movedim(1, 3),
            torch.from_numpy(parts).long(),
            dequantised(points),
            dequantised(distances),
        )

    def _blocks(self, record: int, count: tuple[int, int], generator: torch.Generator) -> tuple[np.ndarray, ...]:
        shard, row = divmod(record, self._records_per_shard)
        arrays = self._shards[shard]
        surface = _block(arrays["surface_points"].shape[1], count[0], generator)
        distance = _block(arrays["distance_points"].shape[1], count[1], generator)
        return (
            arrays["surface_points"][row, surface],
            arrays["surface_normals"][row, surface],
            arrays[REST if self.recipe.moves else "surface_points"][row, surface],
            *((arrays[name][row, surface] for name in STAGES) if self.recipe.swaps else _NO_STAGES),
            arrays["distance_points"][row, distance],
            arrays["distances"][row, distance],
        )

    def _open_shard(self, name: str) -> dict[str, np.ndarray]:
        try:
            return {key: np.load(self.folder / name / f"{key}.npy", mmap_mode="r") for key in shard_arrays(self.recipe)}
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{self.folder / name} cannot be read ({error}); build the corpus again") from None

    def _read_table(self, name: str, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
        path = self.folder / f"{name}.npz"
        try:
            return read_npz(path, columns)
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error}); build the corpus again") from None

    def verify(self) -> None:
        """Compares every file with its checksum.

        Raises:
            InputError: a file differs from what was written.
        """
        for name, written in self.checksums.items():
            path = self.folder / name
            if not path.exists() or digest(path) != written:
                raise InputError(f"{path} is not the file that was written; build the corpus again")


def open_heads(name: str | Path) -> Heads:
    """Heads by a corpus's folder or, where no samples are needed, by a recipe alone.

    Args:
        name: folder that `build_corpus` made, recipe file, or the name of a shipped recipe.

    Raises:
        InputError: it is none of these, or damaged, or a folder in LAMM's layout.
    """
    if is_lamm_folder(name):
        raise InputError(
            f"{name} is in LAMM's layout, which only 'implicit3dmm train' of networks of registered heads reads; give"
            " a corpus or a recipe"
        )
    if Path(name).is_dir():
        return Corpus(name)
    try:
        path = config_file("corpora", str(name))
    except InputError as error:
        raise InputError(f"{name} holds no finished corpus, and there is {error}") from None
    return Heads(load_config(Recipe, path), name=path.stem)


def shard_arrays(recipe: Recipe) -> tuple[str, ...]:
    """Names of the arrays of each shard."""
    return (*SHARD_ARRAYS, *((REST,) if recipe.moves else ()), *(STAGES if recipe.swaps else ()))


_NO_STAGES = (np.zeros((0, 2, 2, 3), np.int16), np.zeros(0, np.uint8))


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no finished corpus; make one with 'implicit3dmm corpus RECIPE --out {folder}'"
        )
    manifest = read_json(path)
    if manifest.get("format") != FORMAT or manifest.get("version") != FORMAT_VERSION:
        raise InputError(f"{path} is of another format or version; build the corpus again with this program")
    return manifest


def read_json(path: Path) -> dict:
    """A mapping from a file of the corpus.

    Raises:
        InputError: the file is damaged.
    """
    try:
        mapping = json.loads(path.read_text())
    except (OSError, ValueError):
        mapping = None
    if not isinstance(mapping, dict):
        raise InputError(f"{path} is damaged; remove its folder and build the corpus again")
    return mapping


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _block(available: int, count: int, generator: torch.Generator) -> slice:
    if count > available:
        raise InputError(f"{count} points of each head asked for, the corpus has {available}; ask for fewer")
    start = int(torch.randint(available - count + 1, (), generator=generator))
    return slice(start, start + count)
