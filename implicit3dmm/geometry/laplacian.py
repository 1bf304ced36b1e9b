"""The Laplacian of a triangle mesh and the curvature that it measures."""

import igl
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix

from implicit3dmm.geometry.mesh import Mesh


def cotangent_laplacian(mesh: Mesh) -> tuple[csr_matrix, Float[np.ndarray, " v"]]:
    """The Laplacian with cotangent weights, and the area that each vertex stands for.

    Meyer et al., "Discrete differential-geometry operators for triangulated 2-manifolds", 2003, section 3: row i of
    the matrix gives, for values at the vertices, the integral of their Laplacian over the area of vertex i.

    Args:
        mesh: with faces; what it gives at vertices of faces without area is not finite.

    Returns:
        The matrix (v, v), symmetric, its diagonal not positive, of no unit; and the mixed Voronoi areas in squared
        units of the vertices.
    """
    return igl.cotmatrix(mesh.vertices, mesh.faces).tocsr(), igl.massmatrix(mesh.vertices, mesh.faces).diagonal()


def mean_curvature(mesh: Mesh) -> Float[np.ndarray, " v"]:
    """Mean of the two principal curvatures at each vertex, 1 / units of the vertices.

    Half the Laplacian of the positions along the vertex normal (Meyer et al., equation 8): 1 / r on a sphere, negative
    where the surface is hollow. At the boundary of an open mesh it means nothing.

    Args:
        mesh: with faces, that look outwards.
    """
    laplacian, areas = cotangent_laplacian(mesh)
    along_normal = np.einsum("vx,vx->v", laplacian @ mesh.vertices, mesh.vertex_normals())
    return -along_normal / (2 * areas)
