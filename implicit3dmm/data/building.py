"""Builds a corpus on disk from its recipe."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.config import from_mapping
from implicit3dmm.data.composites import graft_sites, keypoint_vertices, settle_remainder, stages, vertex_parts
from implicit3dmm.data.corpus import (
    COMPOSITE_COLUMNS,
    FORMAT,
    FORMAT_VERSION,
    REST,
    Corpus,
    digest,
    read_json,
    shard_arrays,
)
from implicit3dmm.data.quantisation import QUANTUM, quantised, to_octahedron
from implicit3dmm.data.recipe import SPLITS, Head, Recipe, generate, movement
from implicit3dmm.data.sources import open_source
from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder
from implicit3dmm.geometry.distance import signed_distance
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.sampling import interpolated, sample_surface
from implicit3dmm.heads.template import ALL_PARTS

SUBJECTS_PER_SHARD = 64

NEAR = ((0.50, 0.01), (0.25, 0.05))
"""(share, standard deviation in canonical units) of signed-distance samples around surface points; the rest is uniform
in the unit ball. 0.01 is 2 mm."""


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
    files += [folder / name / f"{key}.npy" for name in shards for key in shard_arrays(recipe)]
    source = open_source(recipe.source)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "recipe": asdict(recipe),
        "source_version": source.version,
        "licence": source.licence,
        "quantum": QUANTUM,
        "shards": list(shards),
        "files": {path.relative_to(folder).as_posix(): digest(path) for path in sorted(files)},
    }
    with atomic_path(folder / "manifest.json") as path:
        path.write_text(json.dumps(manifest, indent=1))
    return Corpus(folder)


def _sample(recipe: Recipe, head: Head) -> dict[str, np.ndarray]:
    template = open_source(recipe.source).template
    rng = np.random.default_rng([recipe.seed, head.subject, recipe.record_names.index(head.expression), 1])
    mesh = Mesh(head.vertices, template.triangles)
    density = _density(recipe, head, mesh)
    surface = sample_surface(mesh, recipe.surface_points, rng=rng, smooth_normals=True, density=density)
    order = rng.permutation(recipe.surface_points)
    corner = template.triangles[surface.faces, surface.barycentric.argmax(1)]
    # Distances are taken to the quantised points, so that quantisation adds nothing to their error.
    points = quantised(_distance_places(mesh, recipe.distance_points, rng, density))
    distances = signed_distance(points * QUANTUM, mesh).distance
    at_rest = interpolated(head.neutral, template.triangles[surface.faces], surface.barycentric)
    arrays = {
        "surface_points": quantised(surface.points[order]),
        REST: quantised(at_rest[order]),
        "surface_normals": to_octahedron(surface.normals[order]),
        "surface_regions": template.regions[corner[order]],
        "distance_points": points,
        "distances": quantised(distances),
    }
    if recipe.swaps:
        faces, barycentric = template.triangles[surface.faces[order]], surface.barycentric[order]
        parts = vertex_parts(open_source(recipe.source))[corner[order]]
        whole = stages(open_source(recipe.source), head.neutral).reshape(4, -1, 3)
        places = np.stack([interpolated(each, faces, barycentric) for each in whole]).reshape(2, 2, -1, 3)
        settled = settle_remainder(places, parts)
        arrays |= {"surface_stages": quantised(np.moveaxis(settled, 2, 0)), "surface_parts": parts}
    return {key: arrays[key] for key in shard_arrays(recipe)}


def _density(recipe: Recipe, head: Head, mesh: Mesh) -> Float[np.ndarray, " f"] | None:
    """Samples for a unit of area of each face of a head; see `Recipe.moving_share` and `Recipe.part_share`."""
    if not (recipe.moving_share or recipe.part_share):
        return None
    wanted: list[tuple[float, np.ndarray]] = []
    if recipe.moving_share:
        anywhere = movement(recipe)
        own = np.linalg.norm(head.vertices - head.neutral, axis=1)
        wanted += [(recipe.moving_share / 2, moved) for moved in (anywhere, own if own.any() else anywhere)]
    if recipe.part_share:
        sites = graft_sites(open_source(recipe.source))
        wanted += [(recipe.part_share / len(sites), site.inside) for site in sites.values()]
    areas = mesh.face_areas()
    density = np.full(len(areas), (1 - sum(share for share, _ in wanted)) / areas.sum())
    for share, weights in wanted:
        by_face = weights[mesh.faces].mean(1)
        density += share * by_face / (by_face @ areas)
    return density


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
    source = open_source(recipe.source)
    template = source.template
    subjects: dict[str, list] = {"coefficients": [], "similarities": [], "split": [], "about": []}
    columns = ("subject", "expression", "units", "anchors", "landmarks")
    records: dict[str, list] = {name: [] for name in (*columns, *(COMPOSITE_COLUMNS if recipe.swaps else ()))}
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
        if recipe.swaps:
            records["donors"].append([head.donors[part] for part in ALL_PARTS])
            vertices = keypoint_vertices(template)
            places = settle_remainder(stages(source, head.neutral)[:, :, vertices], vertex_parts(source)[vertices])
            records["keypoints"].append(places.astype(np.float32))
    for name, table in (("subjects", subjects), ("records", records)):
        with atomic_path(folder / f"{name}.npz") as path:
            np.savez_compressed(path, **{key: np.array(column) for key, column in table.items()})


def _claim(folder: Path, recipe: Recipe) -> None:
    """Marks the folder as this recipe's, or refuses one that belongs to something else."""
    claim, text = folder / "recipe.json", json.dumps(asdict(recipe), indent=1)
    if claim.exists():
        if from_mapping(Recipe, read_json(claim), where=str(claim)) != recipe:
            raise InputError(f"{folder} holds a corpus of another recipe; choose another folder or remove it")
    elif any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no corpus; choose another folder")
    else:
        with atomic_path(claim) as path:
            path.write_text(text)
