"""Grafts the nose, the eyes or the mouth of one head into another of the same topology.

Composite heads are data to train on: Gu and Pears, "Parts-based implicit 3D face modeling", VISAPP 2024, section 3.4,
move a donor's part by the affine map that brings its periphery nearest to the host's. That leaves a visible seam, which
their section 4.6 names as a limitation; here a smooth displacement of the part takes it away. The triangles stay, so a
composite is as closed as its host.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.laplacian import cotangent_laplacian, mean_curvature
from implicit3dmm.geometry.mesh import Mesh
from implicit3dmm.geometry.neighbours import NearestNeighbours
from implicit3dmm.geometry.similarity import fit_similarity
from implicit3dmm.heads.frame import UNIT_MM
from implicit3dmm.heads.template import PARTS, HeadTemplate, group_regions

STRETCH = 0.1
"""How much the proportions of two heads' rims are expected to differ: the standard deviation of the affine map's
stretch and shear beside the similarity."""
MOST_STRETCH = 2.0
"""No direction is stretched more than this beside the similarity, nor squeezed to less than its inverse."""

REACH_MM = 7.0
"""How far from the rim the blend bends the donor's part. A longer reach does not make the seam much smaller, but bends
the two lids apart, which touch in space and are far from each other on the surface; a shorter one shows as a seam."""


@dataclass(frozen=True)
class Patch:
    """One connected piece of the surface that is grafted as a whole."""

    inside: Int[np.ndarray, " p"]
    """The vertices that move."""
    rim: Int[np.ndarray, " r"]
    """The vertices of the host that are joined to them by an edge; the affine map is fitted here."""
    border: Int[np.ndarray, " b"]
    """The rim and the ring of vertices outside it. What is known on two rings is known with its slope."""
    blend: Float[np.ndarray, "p b"]
    """Continues a displacement of the border into the patch, where it dies away in about twice `REACH_MM`."""

    @classmethod
    def of(cls, mask: Bool[np.ndarray, " v"], head: Mesh) -> "Patch":
        """Prepares the blend of a piece of a head.

        Args:
            mask: the vertices that move.
            head: that the blend is computed on, canonical units.
        """
        rim, border = borders(mask, head.faces)
        # The bi-Laplacian reaches two rings far, so the border is all that the inside depends on. It has few vertices:
        # the answer to a unit displacement of each is kept in place of the factors, and a graft is one matrix product.
        rows = _stiffness(head, head.vertices[rim])[mask]
        blend = -splu(rows[:, mask].tocsc()).solve(rows[:, border].toarray())
        return cls(np.flatnonzero(mask), np.flatnonzero(rim), np.flatnonzero(border), blend)


@dataclass(frozen=True)
class GraftSite:
    """Where a part is cut out and put in; made once for a topology, and used for any number of heads of it."""

    part: str
    triangles: Int[np.ndarray, "t 3"]
    patches: tuple[Patch, ...]
    """One for the nose and the mouth, one for each eye."""

    @classmethod
    def of(cls, template: HeadTemplate, part: str) -> "GraftSite":
        """Finds the patches of a part and prepares the blend; about half a second.

        A patch is the largest connected piece of the part's region with all that it encloses: the films behind the
        lids and the lips belong to it even where their labels say otherwise.

        Args:
            template: the topology, its regions, and the average head that the blend is computed on.
            part: one of `PARTS`.

        Raises:
            InputError: there is no such part, or the template's region of it has no rim.
        """
        if part not in PARTS:
            raise InputError(f"no part {part!r} to graft; there are {', '.join(PARTS)}")
        graph = _neighbours(template.triangles)
        regions = {region: template.in_regions(region) for region in group_regions(part)}
        for region, mask in regions.items():
            if not _ring(graph, mask).any():
                raise InputError(
                    f"region {region} of the template has {mask.sum()} of {len(mask)} vertices and no rim; label some "
                    "around it as another region"
                )
        masks = [_without_islands(graph, mask) for mask in regions.values()]
        return cls(part, template.triangles, tuple(Patch.of(mask, template.mesh) for mask in masks))

    def graft(
        self, host: Float[np.ndarray, "*b v 3"], donor: Float[np.ndarray, "*b v 3"], *, blended: bool = True
    ) -> Float[np.ndarray, "*b v 3"]:
        """Heads with the part of `donor` and all else of `host`; no vertex outside the part moves at all.

        The affine map is that of `fit_affine` on the rim. What is then left between host and donor on the border is
        continued into the part as a thin plate on springs bends: positions and normals agree at the rim, and far from
        it the donor's part stays as it was placed. Heads under different expressions give sound surfaces too, but the
        part is fitted to the host's face: an open mouth is smaller on a host whose jaw is shut.

        Args:
            host: vertices of the template's topology, any unit.
            donor: vertices in the same unit and about the same pose; one donor for each host.
            blended: False leaves the seam of the affine map, as the paper does.

        Raises:
            InputError: the heads are not alike in number, or not of the template's topology.
        """
        host, donor = np.asarray(host, np.float64), np.asarray(donor, np.float64)
        self._check(host, donor)
        composite = host.copy()
        for patch in self.patches:
            linear, offset = _fit_rims(donor[..., patch.rim, :], host[..., patch.rim, :])
            placed = donor[..., patch.inside, :] @ linear + offset
            if blended:
                gap = host[..., patch.border, :] - (donor[..., patch.border, :] @ linear + offset)
                placed += patch.blend @ gap
            composite[..., patch.inside, :] = placed
        return composite

    @property
    def inside(self) -> Bool[np.ndarray, " v"]:
        """Mask of the vertices that move."""
        mask = np.zeros(int(self.triangles.max()) + 1, bool)
        mask[np.concatenate([patch.inside for patch in self.patches])] = True
        return mask

    def crossing(self) -> Int[np.ndarray, "e 2"]:
        """The edges across the rims, from the vertex inside to the vertex outside, each once."""
        edges = _directed_edges(self.triangles)
        inside = self.inside[edges]
        return edges[inside[:, 0] & ~inside[:, 1]]

    def seam(self, head: Float[np.ndarray, "v 3"]) -> float:
        """How much the surface breaks where the part is joined: the change of mean curvature across the rim, 1/mm.

        The mean, over the edges that cross the rim, of the absolute difference of `mean_curvature` at their two ends.
        A step or a crease shows as a large curvature on one side of it and one of the other sign, or none, beyond. A
        head that was never cut has a seam too, that of its own relief there: compare with the host's and the donor's.

        Args:
            head: vertices of the template's topology, canonical units.

        Raises:
            InputError: the head is not of the template's topology.
        """
        self._check(head, head)
        edges = self.crossing()
        around = np.isin(self.triangles, edges).any(axis=1)
        used, faces = np.unique(self.triangles[around], return_inverse=True)
        curvature = mean_curvature(Mesh(head[used] * UNIT_MM, faces.reshape(-1, 3)))
        one, other = curvature[np.searchsorted(used, edges)].T
        return float(np.abs(one - other).mean())

    def _check(self, host: np.ndarray, donor: np.ndarray) -> None:
        expected = (int(self.triangles.max()) + 1, 3)
        if host.shape != donor.shape or host.shape[-2:] != expected:
            raise InputError(
                f"a host of shape {host.shape} and a donor of {donor.shape} were given; both must be heads of one"
                f" topology, (..., {expected[0]}, 3); take both from the template's source"
            )


def borders(
    mask: Bool[np.ndarray, " v"], triangles: Int[np.ndarray, "t 3"]
) -> tuple[Bool[np.ndarray, " v"], Bool[np.ndarray, " v"]]:
    """Masks of rim and border of a piece of a closed surface; see `Patch`."""
    graph = _neighbours(triangles)
    rim = _ring(graph, mask)
    return rim, rim | _ring(graph, mask | rim)


def fit_affine(
    source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "1 3"]]:
    """The affine map that brings `source` near to `target`, for points that may lie almost in a plane.

    Least squares alone would be led by noise out of that plane. So the map is the similarity, then a stretch and shear
    whose entries beside the identity are expected to be of size `STRETCH`: a ridge regression with the weight
    (mean square misfit of the free affine map) / `STRETCH` squared. Directions in which the points are spread follow
    the target, the others the similarity; where an affine map fits exactly, the weight is zero and that map is found.
    The stretch is kept within `MOST_STRETCH`, so that nothing is ever flattened or mirrored.

    Args:
        source: points that span a plane at least, any unit.
        target: where they should go, in the same order.

    Returns:
        linear, offset: the map of rows of points, `points @ linear + offset`.

    Raises:
        InputError: the points lie on one line or in one place, or are not finite.
    """
    similarity = fit_similarity(source, target)
    moved = similarity.apply(source)
    centre = moved.mean(axis=0)
    spread, misfit = moved - centre, target - moved
    covariance, drift = spread.T @ spread / len(spread), spread.T @ misfit / len(spread)
    noise = np.square(misfit - spread @ np.linalg.pinv(covariance, hermitian=True) @ drift).mean()
    ridge = noise / STRETCH**2 * np.eye(3)
    stretch = _bounded(np.eye(3) + np.linalg.pinv(covariance + ridge, hermitian=True) @ drift)
    linear = similarity.scale * similarity.rotation.T @ stretch
    return linear, (centre - source.mean(axis=0) @ linear)[None]


def _bounded(stretch: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """The nearest linear map that does not mirror, with singular values no further from 1 than `MOST_STRETCH`."""
    u, values, vt = np.linalg.svd(stretch)
    sign = np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])
    return (u * sign * np.clip(values * sign, 1 / MOST_STRETCH, MOST_STRETCH)) @ vt


def _fit_rims(
    donor: Float[np.ndarray, "*b r 3"], host: Float[np.ndarray, "*b r 3"]
) -> tuple[Float[np.ndarray, "*b 3 3"], Float[np.ndarray, "*b 1 3"]]:
    batch, one = donor.shape[:-2], donor.shape[-2:]
    maps = [fit_affine(*rims) for rims in zip(donor.reshape(-1, *one), host.reshape(-1, *one), strict=True)]
    linear, offset = (np.array(values) for values in zip(*maps, strict=True))
    return linear.reshape(*batch, 3, 3), offset.reshape(*batch, 1, 3)


def _stiffness(head: Mesh, rim: Float[np.ndarray, "r 3"]) -> csr_matrix:
    """Forces on the vertices of a head, canonical units, by their displacements: of a thin plate on springs.

    The plate's bi-Laplacian alone (Botsch and Kobbelt, "An intuitive framework for real-time freeform modeling",
    SIGGRAPH 2004, section 3) would carry what is wrong at the rim through the whole part. The springs leave the plate
    free at the rim and hold it from `REACH_MM` away, with (distance / reach)^4 / reach^4 on each unit of area.
    """
    laplacian, areas = cotangent_laplacian(head)
    reach = REACH_MM / UNIT_MM
    distance, _ = NearestNeighbours(rim).query(head.vertices)
    return (laplacian @ diags(1 / areas) @ laplacian + diags(areas * distance**4 / reach**8)).tocsr()


def _without_islands(graph: csr_matrix, mask: Bool[np.ndarray, " v"]) -> Bool[np.ndarray, " v"]:
    """The largest connected piece of `mask`, and what lies enclosed in it."""
    return ~_largest_piece(graph, ~_largest_piece(graph, mask))


def _largest_piece(graph: csr_matrix, mask: Bool[np.ndarray, " v"]) -> Bool[np.ndarray, " v"]:
    vertices = np.flatnonzero(mask)
    _, piece = connected_components(graph[vertices][:, vertices], directed=False)
    largest = np.zeros_like(mask)
    largest[vertices[piece == np.bincount(piece).argmax()]] = True
    return largest


def _ring(graph: csr_matrix, mask: Bool[np.ndarray, " v"]) -> Bool[np.ndarray, " v"]:
    """The vertices just outside `mask`."""
    return (graph @ mask.astype(np.float64) > 0) & ~mask


def _neighbours(triangles: Int[np.ndarray, "t 3"]) -> csr_matrix:
    """Which vertices share an edge; of a closed surface, every edge is there in both directions."""
    edges, count = _directed_edges(triangles), int(triangles.max()) + 1
    return csr_matrix((np.ones(len(edges)), tuple(edges.T)), shape=(count, count))


def _directed_edges(triangles: Int[np.ndarray, "t 3"]) -> Int[np.ndarray, "e 2"]:
    return triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
