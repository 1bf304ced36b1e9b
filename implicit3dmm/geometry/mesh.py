"""Triangle meshes and point clouds: one value type, its checks, and its files."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh_arrays import MeshArrays, sum_at
from implicit3dmm.geometry.mesh_files import read_arrays, write_arrays
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.geometry.textures import Texture

MIN_SCAN_POINTS = 100
"""A scan of fewer points says too little about a head to be fitted."""

LARGEST_COORDINATE = 1e12
"""Coordinates beyond this cannot be told from a misread file, in any unit."""

FLATNESS = 1e-4
"""A spread below this share of the largest counts as none; that of a face alone is 0.1."""


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh, or a point cloud where it has no faces.

    Attributes:
        vertices: positions, in any unit.
        faces: vertex indices, counter-clockwise seen from outside; None for a point cloud.
        normals: unit normals as the file gave them, zero where it gave none; None without normals.
        colors: red, green, blue of each vertex, 0 to 255.
        texture: colours of the surface between the vertices; None where the file has none.
    """

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"] | None = None
    normals: Float[np.ndarray, "v 3"] | None = None
    colors: UInt8[np.ndarray, "v 3"] | None = None
    texture: Texture | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", np.ascontiguousarray(self.vertices, dtype=np.float64))
        if self.faces is not None:
            object.__setattr__(self, "faces", np.ascontiguousarray(self.faces, dtype=np.int64))
        if self.normals is not None:
            object.__setattr__(self, "normals", np.ascontiguousarray(self.normals, dtype=np.float64))
        if self.colors is not None:
            object.__setattr__(self, "colors", np.ascontiguousarray(self.colors, dtype=np.uint8))

    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lowest and highest corner of the axis-aligned box around the vertices."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def face_areas(self) -> Float[np.ndarray, " f"]:
        """Area of each face, in squared units of the vertices."""
        return 0.5 * np.linalg.norm(self._face_crosses(), axis=1)

    def face_normals(self) -> Float[np.ndarray, "f 3"]:
        """Unit normal of each face; zero for a face without area."""
        return unit_vectors(self._face_crosses())

    def vertex_normals(self) -> Float[np.ndarray, "v 3"]:
        """Unit normals of the vertices: area-weighted means of their faces; zero where these cancel."""
        crosses = np.repeat(self._face_crosses(), 3, axis=0)
        return unit_vectors(sum_at(self.faces.ravel(), crosses, len(self.vertices)))

    def volume(self) -> float:
        """Enclosed volume of a closed mesh; positive when its faces look outwards."""
        centred = self.vertices - self.bounds().mean(axis=0)
        a, b, c = (centred[self.faces[:, corner]] for corner in range(3))
        return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6.0)

    def is_watertight(self) -> bool:
        """Whether every edge joins exactly two faces that agree on which side is out."""
        edges = self._directed_edges()
        count = len(self.vertices)
        forward = np.sort(edges[:, 0] * count + edges[:, 1])
        backward = np.sort(edges[:, 1] * count + edges[:, 0])
        unique = bool(np.all(forward[1:] != forward[:-1]))
        return len(forward) > 0 and unique and bool(np.array_equal(forward, backward))

    def euler_number(self) -> int:
        """Vertices - edges + faces, over the vertices in use: 2 for each sphere-like closed piece."""
        edges = np.sort(self._directed_edges(), axis=1)
        edge_count = len(np.unique(edges[:, 0] * len(self.vertices) + edges[:, 1]))
        return len(np.unique(self.faces)) - edge_count + len(self.faces)

    def transformed(self, similarity: Similarity) -> "Mesh":
        """The mesh moved by `similarity`; the normals turn with it and stay unit."""
        normals = None if self.normals is None else similarity.apply_to_normals(self.normals)
        return replace(self, vertices=similarity.apply(self.vertices), normals=normals)

    def face_components(self) -> Int[np.ndarray, " f"]:
        """Number of the connected piece that each face belongs to, from 0."""
        count = len(self.vertices)
        starts, ends = self.faces[:, :2].ravel(), self.faces[:, 1:].ravel()
        graph = coo_matrix((np.ones(len(starts), dtype=bool), (starts, ends)), shape=(count, count))
        labels = connected_components(graph, directed=False)[1][self.faces[:, 0]]
        return np.unique(labels, return_inverse=True)[1]

    def largest_component(self) -> "Mesh":
        """The connected piece with the largest area, without the vertices that it does not use."""
        labels = self.face_components()
        areas = np.bincount(labels, weights=self.face_areas())
        return self.with_faces(labels == areas.argmax())

    def with_faces(self, keep: Bool[np.ndarray, " f"]) -> "Mesh":
        """The mesh of the faces marked in `keep`, without the vertices that they do not use."""
        used, faces = np.unique(self.faces[keep], return_inverse=True)
        texture = None if self.texture is None else self.texture.with_faces(keep)
        return replace(self._with_vertices(used), faces=faces.reshape(-1, 3), texture=texture)

    def _with_vertices(self, indices: Int[np.ndarray, " k"]) -> "Mesh":
        normals = None if self.normals is None else self.normals[indices]
        colors = None if self.colors is None else self.colors[indices]
        return Mesh(self.vertices[indices], None, normals, colors)

    def _face_crosses(self) -> Float[np.ndarray, "f 3"]:
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        return np.cross(b - a, c - a)

    def _directed_edges(self) -> Int[np.ndarray, "e 2"]:
        return self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)


def read_mesh(path: str | Path) -> Mesh:
    """Reads a mesh or a point cloud and checks that it can be worked with.

    Known suffixes: .ply .obj .off .stl .glb .gltf; .xyz (text, 3 columns or 6 with normals or colours,
    blanks or commas between them); .npy of shape (n, 3) or (n, 6); .npz with `points` or `vertices` and,
    where it has them, `normals`, `faces` and `colors`. Polygons are cut into triangles. The vertices keep
    the file's order, except in .stl, .glb and .gltf, where repeated ones are merged. The textures of .obj,
    .glb and .gltf are read, and give the vertices their colours too. Nothing is unpickled.

    Args:
        path: the file.

    Returns:
        The mesh in the file's own frame and unit.

    Raises:
        InputError: the file is missing, unknown, truncated or not what its suffix says, or what it
            holds is no set of finite points with valid faces.
    """
    path = Path(path)
    return mesh_from_arrays(read_arrays(path), source=path.name)


def write_mesh(path: str | Path, mesh: Mesh, *, scalars: dict[str, Float[np.ndarray, " v"]] | None = None) -> None:
    """Writes a mesh or a point cloud whole or not at all, in the format that the suffix names.

    Args:
        path: a .ply (binary), .obj, .off, .stl or .glb file.
        mesh: what to write; .stl and .off need faces. Only .ply and .glb keep normals, only .ply, .obj
            and .glb keep colours; textures are not written.
        scalars: further values of each vertex, such as a confidence, by name; .ply only.

    Raises:
        InputError: the suffix is not known, the format cannot hold the mesh, or `path` cannot be written.
    """
    arrays = MeshArrays(mesh.vertices, mesh.faces, mesh.normals, mesh.colors)
    write_arrays(Path(path), arrays, scalars=scalars or {})


def mesh_from_arrays(arrays: MeshArrays, *, source: str) -> Mesh:
    """Checks arrays that came from outside and makes a mesh of them.

    Args:
        arrays: the arrays, of any number type.
        source: what to call them in a message: a file name, or "the points".

    Returns:
        The mesh; normals are made unit, and zero where they were no finite vectors.

    Raises:
        InputError: a wrong shape or number type, NaN, infinite or absurd coordinates, or faces that
            point outside the vertices.
    """
    vertices = _checked_vertices(arrays.vertices, source)
    faces = None if arrays.faces is None else _checked_faces(arrays.faces, len(vertices), source)
    normals = arrays.normals
    if normals is not None:
        normals = _checked_numbers(normals, len(vertices), f"{source}: the normals")
        # A comparison with NaN is false, so these count as not given too.
        given = np.abs(normals).max(axis=1, keepdims=True) < LARGEST_COORDINATE
        normals = unit_vectors(np.where(given, normals, 0.0))
    texture = None if faces is None else arrays.texture
    if texture is not None:
        colors = _vertex_colors(texture, faces, len(vertices))
    else:
        colors = None if arrays.colors is None else _checked_colors(arrays.colors, len(vertices), source)
    return Mesh(vertices, faces, normals, colors, texture)


def check_scan(mesh: Mesh) -> None:
    """Makes sure that a scan has enough points and extent in all three directions to be fitted.

    Raises:
        InputError: fewer than 100 points, or all of them in one place, on a line or in a plane.
    """
    count = len(mesh.vertices)
    if count < MIN_SCAN_POINTS:
        raise InputError(f"the scan has {count} points; at least {MIN_SCAN_POINTS} are needed; give a denser scan")
    centred = mesh.vertices - mesh.vertices.mean(axis=0)
    spread = np.sqrt(np.linalg.eigvalsh(centred.T @ centred / count).clip(min=0.0))[::-1]
    if np.ptp(mesh.vertices, axis=0).max() <= _rounding(mesh.vertices):
        flat = "in one place"
    elif spread[1] <= FLATNESS * spread[0]:
        flat = "on one line"
    elif spread[2] <= FLATNESS * spread[0]:
        flat = "in one plane"
    else:
        return
    raise InputError(f"all {count} points of the scan lie {flat}; a head is a solid; check the file's columns")


def thin(mesh: Mesh, limit: int, *, rng: np.random.Generator) -> Mesh:
    """Keeps at most `limit` vertices, drawn evenly, as a point cloud; a mesh that is small enough stays.

    Args:
        mesh: a mesh or point cloud of any size; a mesh's vertex normals are kept as point normals.
        limit: the most vertices to keep.
        rng: source of the draw.

    Returns:
        `mesh` itself, or the point cloud of `limit` of its vertices in their order.
    """
    if len(mesh.vertices) <= limit:
        return mesh
    if mesh.normals is None and mesh.faces is not None:
        mesh = replace(mesh, normals=mesh.vertex_normals())
    return mesh._with_vertices(np.sort(rng.choice(len(mesh.vertices), size=limit, replace=False, shuffle=False)))


def unit_vectors(vectors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The vectors scaled to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0.0, lengths, 1.0)


def _checked_numbers(values: np.ndarray, rows: int | None, what: str) -> Float[np.ndarray, "n 3"]:
    if values.dtype.kind not in "fiu":
        raise InputError(f"{what} are of type {values.dtype}; real numbers are expected; convert them first")
    if values.ndim != 2 or values.shape[1] != 3 or (rows is not None and len(values) != rows):
        expected = f"({'n' if rows is None else rows}, 3)"
        raise InputError(f"{what} have shape {values.shape}; {expected} is expected; reshape them first")
    with np.errstate(invalid="ignore"):  # signalling NaNs; they are refused with the others
        return values.astype(np.float64)


def _checked_vertices(values: np.ndarray, source: str) -> Float[np.ndarray, "v 3"]:
    vertices = _checked_numbers(values, None, f"{source}: the points")
    if len(vertices) == 0:
        raise InputError(f"{source} has no points; a mesh or a point cloud is expected; export it again")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise InputError(
            f"{source}: {bad.sum()} of {len(vertices)} points have NaN or infinite coordinates, the first is"
            f" point {bad.argmax()}; all must be finite; remove them first"
        )
    largest = np.abs(vertices).max()
    if largest > LARGEST_COORDINATE:
        raise InputError(
            f"{source} has a coordinate of {largest:.3g}; at most {LARGEST_COORDINATE:.0e} is expected in any"
            " unit; the file is probably damaged"
        )
    return vertices


def _checked_faces(values: np.ndarray, vertex_count: int, source: str) -> Int[np.ndarray, "f 3"] | None:
    if values.dtype.kind not in "iu":
        raise InputError(f"{source}: the faces are of type {values.dtype}; integers are expected; convert them")
    if values.ndim != 2 or values.shape[1] != 3:
        raise InputError(f"{source}: the faces have shape {values.shape}; (f, 3) is expected; triangulate first")
    bad = ((values < 0) | (values >= vertex_count)).any(axis=1)
    if bad.any():
        raise InputError(
            f"{source}: {bad.sum()} of {len(values)} faces name vertices that do not exist, the first is face"
            f" {bad.argmax()}: {values[bad.argmax()].tolist()}; indices run from 0 to {vertex_count - 1};"
            " export the mesh again"
        )
    return values.astype(np.int64) if len(values) else None


def _checked_colors(values: np.ndarray, rows: int, source: str) -> UInt8[np.ndarray, "v 3"]:
    if values.ndim == 2 and values.shape[1] == 4:
        values = values[:, :3]
    numbers = _checked_numbers(values, rows, f"{source}: the colours")
    scale = 255.0 if values.dtype.kind == "f" and numbers.max(initial=0.0) <= 1.0 else 1.0
    return np.nan_to_num(numbers * scale).round().clip(0, 255).astype(np.uint8)


def _vertex_colors(texture: Texture, faces: Int[np.ndarray, "f 3"], count: int) -> UInt8[np.ndarray, "v 3"]:
    """The texture's colour at each vertex, of the first face that has it; white where no face has."""
    vertices, first = np.unique(faces, return_index=True)
    colors = np.full((count, 3), 255, np.uint8)
    colors[vertices] = texture.colors_at(first // 3, np.eye(3)[first % 3])
    return colors


def _rounding(vertices: Float[np.ndarray, "v 3"]) -> float:
    """How far rounding may have moved a coordinate: that of 32-bit floats where the values are such."""
    kind = np.float32 if np.array_equal(vertices, vertices.astype(np.float32)) else np.float64
    return 4.0 * float(np.finfo(kind).eps) * float(np.abs(vertices).max())
