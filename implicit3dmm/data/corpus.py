"""A corpus on disk: the samples that training reads, as memory-mapped arrays.

    manifest.json     recipe, source version, licence, quantum, counts, checksums
    subjects.npz      coefficients, similarities to the canonical frame, splits, what is known of each
    records.npz       subject, expression, unit weights, landmarks and, at rest, anchors of each record
    shard-0000/       surface_points.npy, surface_normals.npy, surface_regions.npy, distance_points.npy, distances.npy,
                      and surface_neutral.npy where the recipe has expressions

Coordinates and distances are int16 multiples of 1/30000 canonical unit (6.7 micrometres). Points are shuffled once,
when they are written, so that a training batch reads one contiguous block of each record.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from implicit3dmm.config import from_mapping, load_config
from implicit3dmm.data.heads import Heads
from implicit3dmm.data.npz import read_npz
from implicit3dmm.data.recipe import SPLITS, Head, Recipe, generate, movement
from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder
from implicit3dmm.geometry.distance import signed_distance
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import interpolated, sample_surface
from implicit3dmm.resources import config_file

FORMAT = "implicit3dmm-corpus"
FORMAT_VERSION = 1
QUANTUM = 1 / 30000
SUBJECTS_PER_SHARD = 64

NEAR = ((0.50, 0.01), (0.25, 0.05))
"""(share, standard deviation in canonical units) of signed-distance samples around surface points; the rest is uniform
in the unit ball. 0.01 is 2 mm."""

GRAM_BLOCK = 4096
"""Columns that are cast to double precision at once."""

SHARD_ARRAYS = ("surface_points", "surface_normals", "surface_regions", "distance_points", "distances")
REST = "surface_neutral"
"""Where each surface sample lies on the subject's neutral head; a corpus of neutral heads has no such array."""


class Samples(NamedTuple):
    """Points of a batch of records, canonical units."""

    surface: Float[Tensor, "b n 3"]
    normals: Float[Tensor, "b n 3"]
    neutral: Float[Tensor, "b n 3"]
    """Where the surface points lie on the subjects' neutral heads."""
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
        records = self._read_table("records", ("expression", "units", "anchors", "landmarks"))
        self.record_expression = records["expression"]
        self.record_units = records["units"]
        self.anchors = torch.from_numpy(records["anchors"])
        self.landmarks = torch.from_numpy(records["landmarks"])
        self._shards = [self._open_shard(name) for name in manifest["shards"]]
        self._records_per_shard = SUBJECTS_PER_SHARD * len(self.recipe.record_names)

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
        surface, normals, neutral, points, distances = (np.stack(field) for field in zip(*blocks, strict=True))
        return Samples(
            _dequantised(surface),
            _from_octahedron(normals),
            _dequantised(neutral),
            _dequantised(points),
            _dequantised(distances),
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
            arrays["distance_points"][row, distance],
            arrays["distances"][row, distance],
        )

    def _open_shard(self, name: str) -> dict[str, np.ndarray]:
        try:
            return {key: np.load(self.folder / name / f"{key}.npy", mmap_mode="r") for key in _arrays(self.recipe)}
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
        for name, digest in self.checksums.items():
            path = self.folder / name
            if not path.exists() or _digest(path) != digest:
                raise InputError(f"{path} is not the file that was written; build the corpus again")


def build_corpus(recipe: Recipe, folder: str | Path, *, progress: Callable[[Iterable], Iterable] = iter) -> Corpus:
    """Makes a corpus on disk; a build that was killed goes on where it stopped.

    Args:
        recipe: what to make.
        folder: where; made if missing. An existing corpus of the same recipe is opened as it is.
        progress: wraps the list of shards' subjects, such as `tqdm`.

    Raises:
        InputError: a value of the recipe is out of range, or the folder holds something else, or cannot be written to.
    """
    recipe.validate()
    folder = writable_folder(folder)
    _claim(folder, recipe)
    if (folder / "manifest.json").exists():
        return Corpus(folder)
    starts = range(0, recipe.subjects, SUBJECTS_PER_SHARD)
    shards = {f"shard-{i:04d}": range(s, min(s + SUBJECTS_PER_SHARD, recipe.subjects)) for i, s in enumerate(starts)}
    pending = [(name, number) for name, subjects in shards.items() for number in subjects]
    open_shard: list[dict[str, np.ndarray]] = []
    for name, number in progress(pending):
        if not (folder / name).exists():
            open_shard += [_sample(recipe, head) for head in generate(recipe, (number,))]
            if number == shards[name][-1]:
                _write_shard(folder / name, open_shard)
                open_shard = []
    _write_tables(recipe, folder)
    files = [folder / f"{name}.npz" for name in ("records", "subjects")]
    files += [folder / name / f"{key}.npy" for name in shards for key in _arrays(recipe)]
    source = open_source(recipe.source)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "recipe": asdict(recipe),
        "source_version": source.version,
        "licence": source.licence,
        "quantum": QUANTUM,
        "shards": list(shards),
        "files": {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(files)},
    }
    with atomic_path(folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1))
    return Corpus(folder)


def open_heads(name: str | Path) -> Heads:
    """Heads by a corpus's folder or, where no samples are needed, by a recipe alone.

    Args:
        name: folder that `build_corpus` made, recipe file, or the name of a shipped recipe.

    Raises:
        InputError: it is none of these, or damaged.
    """
    if Path(name).is_dir():
        return Corpus(name)
    try:
        path = config_file("corpora", str(name))
    except InputError as error:
        raise InputError(f"{name} holds no finished corpus, and there is {error}") from None
    return Heads(load_config(Recipe, path), name=path.stem)


def neutral_vertices(heads: Heads, subjects: Int[Tensor, " s"]) -> Float[np.ndarray, "s c"]:
    """Vertex coordinates of the subjects' neutral heads, canonical units, a row of 3 v numbers for each."""
    neutral = replace(heads.recipe, expressions=("neutral",), random_expressions=0)
    return np.stack([head.vertices.astype(np.float32).ravel() for head in generate(neutral, subjects.tolist())])


def gram_axes(
    centred: Float[np.ndarray, "s c"],
) -> tuple[Float[np.ndarray, "s s"], Float[np.ndarray, " s"]]:
    """Left singular vectors, in columns, and singular values of a matrix of few rows, largest first.

    From the s x s matrix of the rows' products, summed in double precision: exact, without an s x c decomposition.
    """
    gram = np.zeros((len(centred), len(centred)))
    for start in range(0, centred.shape[1], GRAM_BLOCK):
        block = centred[:, start : start + GRAM_BLOCK].astype(np.float64)
        gram += block @ block.T
    squared, left = np.linalg.eigh(gram)
    return left[:, ::-1], np.sqrt(squared[::-1].clip(min=0))


def _arrays(recipe: Recipe) -> tuple[str, ...]:
    return (*SHARD_ARRAYS, REST) if recipe.moves else SHARD_ARRAYS


def _sample(recipe: Recipe, head: Head) -> dict[str, np.ndarray]:
    template = open_source(recipe.source).template
    rng = np.random.default_rng([recipe.seed, head.subject, recipe.record_names.index(head.expression), 1])
    mesh = Mesh(head.vertices, template.triangles)
    density = _density(recipe, mesh)
    surface = sample_surface(mesh, recipe.surface_points, rng=rng, smooth_normals=True, density=density)
    order = rng.permutation(recipe.surface_points)
    corner = template.triangles[surface.faces, surface.barycentric.argmax(1)]
    # Distances are taken to the quantised points, so that quantisation adds nothing to their error.
    points = _quantised(_distance_places(mesh, recipe.distance_points, rng, density))
    distances = signed_distance(points * QUANTUM, mesh).distance
    at_rest = interpolated(head.neutral, template.triangles[surface.faces], surface.barycentric)
    arrays = {
        "surface_points": _quantised(surface.points[order]),
        REST: _quantised(at_rest[order]),
        "surface_normals": _to_octahedron(surface.normals[order]),
        "surface_regions": template.regions[corner[order]],
        "distance_points": points,
        "distances": _quantised(distances),
    }
    return {key: arrays[key] for key in _arrays(recipe)}


def _density(recipe: Recipe, mesh: Mesh) -> Float[np.ndarray, " f"] | None:
    """Samples for a unit of area of each face of a head."""
    if not recipe.moving_share:
        return None
    moved = movement(recipe)[mesh.faces].mean(1)
    areas = mesh.face_areas()
    even, moving = 1 / areas.sum(), moved / (moved @ areas)
    return (1 - recipe.moving_share) * even + recipe.moving_share * moving


def _distance_places(
    mesh: Mesh, count: int, rng: np.random.Generator, density: Float[np.ndarray, " f"] | None
) -> Float[np.ndarray, "m 3"]:
    near = [(round(share * count), std) for share, std in NEAR]
    around = sample_surface(mesh, sum(number for number, _ in near), rng=rng, density=density).points
    around = rng.permutation(around)
    around += (
        rng.normal(size=around.shape) * np.repeat([std for _, std in near], [number for number, _ in near])[:, None]
    )
    directions = rng.normal(size=(count - len(around), 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ball = directions * np.cbrt(rng.random((len(directions), 1)))
    return rng.permutation(np.concatenate([around, ball]))


def _write_shard(folder: Path, records: list[dict[str, np.ndarray]]) -> None:
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for key in records[0]:
        np.save(temporary / f"{key}.npy", np.stack([record[key] for record in records]))
    temporary.rename(folder)


def _write_tables(recipe: Recipe, folder: Path) -> None:
    template = open_source(recipe.source).template
    subjects: dict[str, list] = {"coefficients": [], "similarities": [], "split": [], "about": []}
    records: dict[str, list] = {"subject": [], "expression": [], "units": [], "anchors": [], "landmarks": []}
    for head in generate(recipe):
        if head.expression == recipe.record_names[0]:
            subjects["coefficients"].append(head.person.coefficients)
            subjects["similarities"].append(head.similarity.matrix())
            subjects["split"].append(SPLITS.index(recipe.split_of(head.subject)))
            subjects["about"].append(json.dumps(head.person.about))
        records["subject"].append(head.subject)
        records["expression"].append(head.expression)
        records["units"].append(head.units)
        records["anchors"].append(head.neutral[template.anchors].astype(np.float32))
        records["landmarks"].append(head.vertices[template.landmarks].astype(np.float32))
    for name, table in (("subjects", subjects), ("records", records)):
        with atomic_path(folder / f"{name}.npz") as path:
            np.savez_compressed(path, **{key: np.array(column) for key, column in table.items()})


def _claim(folder: Path, recipe: Recipe) -> None:
    """Marks the folder as this recipe's, or refuses one that belongs to something else."""
    claim, text = folder / "recipe.json", json.dumps(asdict(recipe), indent=1)
    if claim.exists():
        if from_mapping(Recipe, _json(claim), where=str(claim)) != recipe:
            raise InputError(f"{folder} holds a corpus of another recipe; choose another folder or remove it")
    elif any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no corpus; choose another folder")
    else:
        with atomic_path(claim) as path:
            path.write_text(text)


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.exists():
        raise InputError(
            f"{folder} holds no finished corpus; make one with 'implicit3dmm corpus RECIPE --out {folder}'"
        )
    manifest = _json(path)
    if manifest.get("format") != FORMAT or manifest.get("version") != FORMAT_VERSION:
        raise InputError(f"{path} is of another format or version; build the corpus again with this program")
    return manifest


def _json(path: Path) -> dict:
    try:
        mapping = json.loads(path.read_text())
    except (OSError, ValueError):
        mapping = None
    if not isinstance(mapping, dict):
        raise InputError(f"{path} is damaged; remove its folder and build the corpus again")
    return mapping


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _block(available: int, count: int, generator: torch.Generator) -> slice:
    if count > available:
        raise InputError(f"{count} points of each head asked for, the corpus has {available}; ask for fewer")
    start = int(torch.randint(available - count + 1, (), generator=generator))
    return slice(start, start + count)


def _quantised(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values / QUANTUM), -32767, 32767).astype(np.int16)


def _dequantised(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float() * QUANTUM


def _to_octahedron(normals: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "n 2"]:
    """Unit vectors folded onto the octahedron's square, two int16 each (Cigolle et al. 2014)."""
    flat = normals / np.abs(normals).sum(1, keepdims=True).clip(1e-12)
    folded = (1 - np.abs(flat[:, 1::-1])) * np.where(flat[:, :2] >= 0, 1, -1)
    return np.round(np.where(flat[:, 2:] < 0, folded, flat[:, :2]) * 32767).astype(np.int16)


def _from_octahedron(folded: Int[np.ndarray, "*n 2"]) -> Float[Tensor, "*n 3"]:
    flat = torch.from_numpy(folded).float() / 32767
    z = 1 - flat.abs().sum(-1, keepdim=True)
    back = z.clamp_max(0) * torch.where(flat >= 0, 1, -1)
    return torch.nn.functional.normalize(torch.cat([flat + back, z], dim=-1), dim=-1)
