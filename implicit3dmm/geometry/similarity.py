"""Similarity transforms of space: one scale, a rotation, a translation."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from implicit3dmm.errors import InputError

# A typed or rounded 4x4 matrix is taken for a similarity when its axes agree to one part in a thousand.
MATRIX_TOLERANCE = 1e-3
# Points lie on a line when the second singular value of their covariance is this small beside the first.
COLLINEAR_TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
    """The map `x -> scale * rotation @ x + translation`.

    Attributes:
        scale: positive factor of all lengths.
        rotation: (3, 3), orthogonal with determinant +1.
        translation: (3,), in units of the space that is mapped to.
    """

    scale: float
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "rotation", np.array(self.rotation, dtype=np.float64))
        object.__setattr__(self, "translation", np.array(self.translation, dtype=np.float64))
        assert self.scale > 0, f"scale {self.scale}"
        assert self.rotation.shape == (3, 3), self.rotation.shape
        assert self.translation.shape == (3,), self.translation.shape

    @classmethod
    def identity(cls) -> Similarity:
        """The transform that changes nothing."""
        return cls(1.0, np.eye(3), np.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: ArrayLike) -> Similarity:
        """Reads a homogeneous (4, 4) matrix that acts on column vectors.

        The linear part is replaced by the nearest scaled rotation, so that a matrix typed with a few digits
        gives an exact similarity.

        Raises:
            InputError: the matrix is not (4, 4) or not finite, its last row is not (0, 0, 0, 1), or its
                linear part mirrors, shears or stretches by more than a thousandth.
        """
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise InputError(
                f"the transform has shape {matrix.shape}; 4 x 4 was expected; write four rows of four numbers"
            )
        if not np.isfinite(matrix).all():
            raise InputError("the transform holds NaN or infinity; finite numbers were expected; correct it")
        if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-9):
            raise InputError(
                f"the last row of the transform is {matrix[3].tolist()}; [0, 0, 0, 1] was expected; "
                "transpose the matrix if it was written for row vectors"
            )
        u, axes, vt = np.linalg.svd(matrix[:3, :3])
        if axes[0] <= 0 or axes[2] < (1 - MATRIX_TOLERANCE) * axes[0] or np.linalg.det(u @ vt) < 0:
            raise InputError(
                f"the transform has axis lengths {np.round(axes, 6).tolist()} and determinant "
                f"{np.linalg.det(matrix[:3, :3]):.4g}; one scale and a rotation were expected; "
                "remove mirroring, shear and stretch"
            )
        return cls(float(axes.mean()), u @ vt, matrix[:3, 3])

    def apply(self, points: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Maps points."""
        return self.scale * (points @ self.rotation.T) + self.translation

    def apply_to_normals(self, normals: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3"]:
        """Turns directions; their lengths stay."""
        return normals @ self.rotation.T

    def inverse(self) -> Similarity:
        """The transform that leads back."""
        scale = 1 / self.scale
        return Similarity(scale, self.rotation.T, -scale * (self.translation @ self.rotation))

    def compose(self, other: Similarity) -> Similarity:
        """`self` after `other`: `a.compose(b).apply(x) == a.apply(b.apply(x))`."""
        return Similarity(self.scale * other.scale, self.rotation @ other.rotation, self.apply(other.translation))

    def matrix(self) -> Float[np.ndarray, "4 4"]:
        """The homogeneous matrix that acts on column vectors."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    def angle_to(self, other: Similarity) -> float:
        """Angle between the two rotations, degrees in [0, 180]."""
        return rotation_angle(self.rotation, other.rotation)


def rotation_angle(a: Float[np.ndarray, "3 3"], b: Float[np.ndarray, "3 3"]) -> float:
    """Angle of the rotation that leads from `a` to `b`, degrees in [0, 180]."""
    # |a - b|_F = 2 sqrt(2) sin(angle / 2) keeps its digits for small angles, where the arc cosine loses half.
    return float(np.degrees(2 * np.arcsin(min(1.0, np.linalg.norm(a - b) / np.sqrt(8)))))


def fit_similarity(
    source: Float[np.ndarray, "n 3"],
    target: Float[np.ndarray, "n 3"],
    *,
    weights: Float[np.ndarray, "n"] | None = None,
    with_scale: bool = True,
) -> Similarity:
    """The similarity that brings `source` nearest to `target`, in weighted least squares.

    Minimises `sum_i weights_i |scale R source_i + t - target_i|^2` over proper rotations: mirrored or planar
    input never gives a reflection (Umeyama, "Least-squares estimation of transformation parameters between
    two point patterns", PAMI 1991, equations 39 to 42).

    Args:
        source: points to be moved.
        target: where they should go, in the same order.
        weights: not negative; equal weights when None.
        with_scale: False keeps the scale at 1.

    Raises:
        InputError: fewer than three points carry weight, a coordinate is not finite, or the points lie on
            one line or in one place, so that no single rotation is the best.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    weights = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    assert source.shape == target.shape, (source.shape, target.shape)
    assert weights.shape == source.shape[:1], (weights.shape, source.shape)
    assert (weights >= 0).all()
    if np.count_nonzero(weights) < 3:
        raise InputError(
            f"{np.count_nonzero(weights)} point pairs carry weight; a similarity needs at least 3; give more"
        )
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise InputError("a point pair has NaN or infinite coordinates; finite numbers were expected; drop it")
    weights = weights / weights.sum()
    source_mean, target_mean = weights @ source, weights @ target
    centred = source - source_mean
    covariance = (target - target_mean).T @ (weights[:, None] * centred)
    u, singular, vt = np.linalg.svd(covariance)
    if singular[1] <= COLLINEAR_TOLERANCE * singular[0]:
        raise InputError(
            "the point pairs lie on one line or in one place; at least 3 that span a plane were expected; spread them"
        )
    sign = np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])
    rotation = (u * sign) @ vt
    scale = float(singular @ sign / (weights @ (centred**2).sum(1))) if with_scale else 1.0
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
