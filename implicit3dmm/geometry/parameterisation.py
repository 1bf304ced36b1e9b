"""Maps a disc-like piece of a surface onto the unit square without flipping a triangle."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, csr_matrix, diags, identity
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import Mesh

BALANCE = 0.5
"""Triangles share the square by the roots of their areas: small ones, where the shape is fine, get more of it, and
large ones still enough to be read back from pixels."""

MOST_STEPS = 10
"""Times that the weights are estimated anew at most; the stretch is lowest after two or three."""

CORNERS = np.array([(0.0, 1.0), (0.0, 0.0), (1.0, 0.0), (1.0, 1.0)])
"""Of the square, counter-clockwise from the upper left."""


@dataclass(frozen=True)
class Parameterisation:
    """A patch laid on the unit square, its outer border on that of the square."""

    places: Float[np.ndarray, "v 2"]
    """(u, v) of each vertex; seen from outside the surface u grows to the right and v upwards."""
    triangles: Int[np.ndarray, "t 3"]
    """Of the patch, then those that fill its holes, which join an edge of a hole to a vertex in the middle of it."""
    fillings: Float[np.ndarray, "h 2"]
    """Places of the vertices that were added, one in each hole; their numbers follow those of the patch."""

    def areas(self) -> Float[np.ndarray, " t"]:
        """Area of each triangle in the square, negative where it lies upside down; they add up to 1."""
        return _signed_areas(np.concatenate([self.places, self.fillings]), self.triangles)

    def flips(self) -> int:
        """How many triangles lie upside down or have no area."""
        return int((self.areas() <= 0).sum())


def disc_faces(mesh: Mesh, inside: Bool[np.ndarray, " v"]) -> Bool[np.ndarray, " f"]:
    """The faces between the vertices marked in `inside` that can be laid on a square.

    These are the largest piece that hangs together by edges. What hangs on it by an edge alone whose ends both lie on
    the border is cut off there: on a straight side of the square it would have no area.

    Args:
        mesh: with faces.
        inside: which vertices.

    Raises:
        InputError: no face lies between these vertices.
    """
    chosen = np.flatnonzero(inside[mesh.faces].all(axis=1))
    if not len(chosen):
        raise InputError("no triangle has all its vertices among those chosen; choose a whole region of the surface")
    ends = np.sort(_directed_edges(mesh.faces[chosen]), axis=1)
    edges, edge, faces_at = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
    edge = edge.ravel()
    on_border = np.isin(edges, edges[faces_at == 1]).all(axis=1)
    by_edge = np.argsort(edge, kind="stable")
    first = np.searchsorted(edge[by_edge], np.flatnonzero((faces_at == 2) & ~on_border))
    links = by_edge[first] // 3, by_edge[first + 1] // 3
    graph = coo_matrix((np.ones(len(first)), links), shape=(len(chosen), len(chosen)))
    piece = connected_components(graph, directed=False)[1]
    keep = np.zeros(len(mesh.faces), bool)
    keep[chosen[piece == np.bincount(piece).argmax()]] = True
    return keep


def border_loops(faces: Int[np.ndarray, "f 3"]) -> list[Int[np.ndarray, " b"]]:
    """The vertices along each border of a surface, in the direction in which the faces beside it name them.

    Raises:
        InputError: a border meets itself in a vertex.
    """
    edges = _directed_edges(faces)
    count = int(faces.max()) + 1
    single = ~np.isin(edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0])
    following = dict(edges[single].tolist())
    if len(following) < single.sum():
        raise InputError("the border of the patch meets itself in a vertex; choose a region with a simple border")
    loops = []
    while following:
        loop = [min(following)]
        while loop[-1] in following:
            loop.append(following.pop(loop[-1]))
        loops.append(np.array(loop[:-1]))
    return loops


def square_parameterisation(mesh: Mesh, *, top: int, balance: float = BALANCE) -> Parameterisation:
    """Lays a patch on the unit square, its longest border on that of the square.

    Each inner vertex is a mean of its neighbours with positive weights, so no triangle can flip or vanish (Tutte, "How
    to draw a graph", 1963; Floater, "One-to-one piecewise linear mappings over triangulations", 2003). First all
    weights are equal. Then each vertex's weight is divided by how much the map stretches around it, again and again
    while the stretch of the whole falls (Yoshizawa, Belyaev and Seidel, "A fast and simple stretch-minimizing mesh
    parameterization", SMI 2004); the weights stay positive. A vertex is added in the middle of each hole.

    Args:
        mesh: a disc, or a disc with holes, of one piece; see `disc_faces`.
        top: the border vertex in the middle of the upper side, or near it: the corners are the vertices nearest to one,
            three, five and seven eighths of the border's length from it.
        balance: the square is shared out by this power of the triangles' areas: 0 gives each as much as any other, 1
            as much as it has on the surface.

    Raises:
        InputError: the mesh is no such patch, or `top` is not on its border.
    """
    loops = border_loops(mesh.faces)
    if not loops:
        raise InputError("the mesh has no border; choose a part of the surface that can be laid flat")
    outer = loops.pop(int(np.argmax([_lengths(mesh.vertices[loop]).sum() for loop in loops])))
    if top not in outer:
        raise InputError(f"vertex {top} is not on the outer border; give one of its {len(outer)} vertices")
    count = len(mesh.vertices)
    middles = [mesh.vertices[loop].mean(axis=0, keepdims=True) for loop in loops]
    fans = [_fan(loop, count + number) for number, loop in enumerate(loops)]
    filled = Mesh(np.concatenate([mesh.vertices, *middles]), np.concatenate([mesh.faces, *fans]))
    if filled.euler_number() != 1 or len(np.unique(filled.faces)) < len(filled.vertices):
        raise InputError("the patch is not one disc, with or without holes; choose its largest piece alone")
    outer = np.roll(outer, -int(np.flatnonzero(outer == top)[0]))
    places = _balanced(filled, outer, _on_square(mesh.vertices[outer]), balance)
    return Parameterisation(places[:count], filled.faces, places[count:])


def _balanced(
    mesh: Mesh, held: Int[np.ndarray, " b"], held_places: Float[np.ndarray, "b 2"], balance: float
) -> Float[np.ndarray, "v 2"]:
    """Places of all vertices with the least stretch that was met; of a disc without holes."""
    share = mesh.face_areas() ** balance
    share /= share.sum()
    weights = np.ones(len(mesh.vertices))
    best, least = None, np.inf
    for _ in range(MOST_STEPS):
        places = _weighted_means(mesh.faces, weights, held, held_places)
        if not (_signed_areas(places, mesh.faces) > 0).all():
            break
        around, whole = _stretch(mesh, places, share)
        if whole >= least:
            break
        best, least = places, whole
        weights = weights / around
        weights /= np.exp(np.log(weights).mean())
    if best is None:
        raise InputError("an edge between two border vertices leaves triangles flat; take the faces of disc_faces")
    return best


def _weighted_means(
    faces: Int[np.ndarray, "f 3"],
    weights: Float[np.ndarray, " v"],
    held: Int[np.ndarray, " b"],
    held_places: Float[np.ndarray, "b 2"],
) -> Float[np.ndarray, "v 2"]:
    """Where the vertices lie if each that is not held is the mean of its neighbours, which count by their weights."""
    count = len(weights)
    edges = _directed_edges(faces)
    tails, heads = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0).T
    links = csr_matrix((weights[heads], (tails, heads)), shape=(count, count))
    means = diags(1 / (links @ np.ones(count))) @ links
    free = np.ones(count, bool)
    free[held] = False
    places = np.zeros((count, 2))
    places[held] = held_places
    rows = means[free]
    system = (identity(int(free.sum())) - rows[:, free]).tocsc()
    places[free] = splu(system).solve(rows @ places)
    return places


def _stretch(
    mesh: Mesh, places: Float[np.ndarray, "v 2"], share: Float[np.ndarray, " f"]
) -> tuple[Float[np.ndarray, " v"], float]:
    """How much the map from the square to the surface stretches around each vertex, and as a whole.

    Root mean square over directions and, by `share`, over triangles (Sander et al., "Texture mapping progressive
    meshes", SIGGRAPH 2001, section 3), each triangle scaled to the area that it should have.
    """
    flat, solid = (_corner_edges(points, mesh.faces) for points in (places, mesh.vertices))
    jacobian = np.linalg.solve(flat, solid)
    squared = 0.5 * np.square(jacobian).sum(axis=(1, 2)) * share / mesh.face_areas()
    corners, count = mesh.faces.ravel(), len(mesh.vertices)
    sums = np.bincount(corners, np.repeat(share * squared, 3), count)
    return np.sqrt(sums / np.bincount(corners, np.repeat(share, 3), count)), float((share * squared).sum())


def _on_square(border: Float[np.ndarray, "b 3"]) -> Float[np.ndarray, "b 2"]:
    """Places of border vertices on the sides of the square, by length along the border; the first lies in mid-top."""
    along = np.concatenate([[0.0], np.cumsum(_lengths(border))])
    whole, along = along[-1], along[:-1]
    corners = [int(np.abs(along - whole * eighths / 8).argmin()) for eighths in (1, 3, 5, 7)]
    if len(set(corners)) < 4:
        raise InputError(f"a border of {len(border)} vertices is too coarse for four sides; take a finer mesh")
    lengths = np.append(along[corners], along[corners[0]] + whole)
    turned = np.where(along < lengths[0], along + whole, along)
    corner_places = np.append(CORNERS, CORNERS[:1], axis=0)
    return np.stack([np.interp(turned, lengths, corner_places[:, axis]) for axis in (0, 1)], axis=1)


def _fan(loop: Int[np.ndarray, " b"], middle: int) -> Int[np.ndarray, "b 3"]:
    return np.stack([np.roll(loop, -1), loop, np.full_like(loop, middle)], axis=1)


def _lengths(loop: Float[np.ndarray, "b 3"]) -> Float[np.ndarray, " b"]:
    """Of the edge from each point of a closed line to the next."""
    return np.linalg.norm(np.roll(loop, -1, axis=0) - loop, axis=1)


def _corner_edges(points: Float[np.ndarray, "v d"], triangles: Int[np.ndarray, "t 3"]) -> Float[np.ndarray, "t 2 d"]:
    return points[triangles[:, 1:]] - points[triangles[:, :1]]


def _signed_areas(places: Float[np.ndarray, "v 2"], triangles: Int[np.ndarray, "t 3"]) -> Float[np.ndarray, " t"]:
    return 0.5 * np.linalg.det(_corner_edges(places, triangles))


def _directed_edges(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "e 2"]:
    return faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
