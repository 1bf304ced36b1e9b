"""Cameras of the canonical frame: where the viewer stands, and what of the scene the picture frames."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from implicit3dmm.errors import InputError

View = Literal["front", "three_quarter", "profile", "back"]

# Turn of the viewer about the y axis, from straight ahead of the face towards the subject's left, and the
# height of the viewer above the horizon; degrees.
_STANDPOINTS: dict[str, tuple[float, float]] = {
    "front": (0.0, 0.0),
    "three_quarter": (38.0, 6.0),
    "profile": (90.0, 0.0),
    "back": (180.0, 0.0),
}


@dataclass(frozen=True)
class Camera:
    """A viewer that looks at `target`; pictures keep the aspect of the scene whatever their size.

    Attributes:
        target: (3,) the point in the middle of the picture.
        axes: (3, 3) orthonormal rows: the picture's right, its up, and the direction towards the viewer.
        half_extent: half width and half height, at the target's depth, of what must be in the picture.
        distance: of the viewer from the target, scene units; infinite is the orthographic view.
    """

    target: Float[np.ndarray, "3"]
    axes: Float[np.ndarray, "3 3"]
    half_extent: tuple[float, float]
    distance: float = math.inf

    def pixel_pitch(self, size: tuple[int, int]) -> float:
        """Width of a pixel at the target's depth, scene units, for a picture of `size` (width, height)."""
        return max(2 * self.half_extent[0] / size[0], 2 * self.half_extent[1] / size[1])

    def to_view(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Points in the camera's frame: x right, y up, z towards the viewer; the target is the origin."""
        return self.turn(points - self.target)

    def turn(self, directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Directions (normals) in the camera's frame."""
        # Not by BLAS: on a busy machine, waking its threads costs more than this little work.
        return np.einsum("ij,kj->ik", directions, self.axes)

    def magnification(self, depth: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """How much larger things appear at view depth z than at the target's depth; at most 50 times."""
        return 1.0 / np.maximum(1.0 - depth / self.distance, 0.02)

    def project(self, points: Float[np.ndarray, "n 3"], size: tuple[int, int]) -> Float[np.ndarray, "n 3"]:
        """Where points fall in a picture of `size` (width, height).

        Returns:
            (n, 3): column and row in pixels from the upper left corner (pixel centres at halves), and the
            view depth z, larger for nearer points.
        """
        view = self.to_view(points)
        scale = self.magnification(view[:, 2]) / self.pixel_pitch(size)
        columns = size[0] / 2 + view[:, 0] * scale
        rows = size[1] / 2 - view[:, 1] * scale
        return np.stack([columns, rows, view[:, 2]], axis=1)

    def sample_window(
        self, points: Float[np.ndarray, "n 3"], size: tuple[int, int], antialias: int
    ) -> tuple[Int[np.ndarray, " w"], Int[np.ndarray, " h"]]:
        """Columns and rows of the picture's samples among which all that lies between `points` must fall."""
        places = self.project(points, size)[:, :2] * antialias
        low = np.clip(np.floor(places.min(axis=0)) - 1, 0, None).astype(np.int64)
        high = np.minimum(np.ceil(places.max(axis=0)) + 1, np.multiply(size, antialias)).astype(np.int64)
        return np.arange(low[0], high[0]), np.arange(low[1], high[1])


def camera_for_points(
    view: View, points: Float[np.ndarray, "n 3"], *, margin: float = 0.06, field_of_view: float = 12.0
) -> Camera:
    """The named view of the canonical frame, framed so that all `points` are in the picture.

    Args:
        view: "front", "three_quarter" and "profile" (both from the subject's left), or "back".
        points: what must be seen, canonical frame.
        margin: free border on each side, as a share of the framed extent.
        field_of_view: angle of the larger extent, degrees; 0 is the orthographic view. The default is a
            portrait taken from about two metres.

    Raises:
        InputError: the view has no such name, or there is nothing of finite, positive extent to frame.
    """
    if view not in _STANDPOINTS:
        raise InputError(f"the view {view!r} is unknown; expected one of {', '.join(get_args(View))}")
    axes = _axes(*np.radians(_STANDPOINTS[view]))
    rotated = np.asarray(points, dtype=np.float64).reshape(-1, 3) @ axes.T
    if len(rotated) == 0 or not np.isfinite(rotated).all() or np.ptp(rotated[:, :2]) == 0:
        raise InputError("there is nothing to frame; expected finite points with some extent; check the mesh")
    centre = (rotated.min(axis=0) + rotated.max(axis=0)) / 2
    flat = Camera(centre @ axes, axes, (1.0, 1.0), _distance(rotated - centre, field_of_view))
    offsets = rotated - centre
    reach = np.abs(offsets[:, :2] * flat.magnification(offsets[:, 2:])).max(axis=0) * (1 + 2 * margin)
    return Camera(flat.target, axes, (float(reach[0]), float(reach[1])), flat.distance)


def camera_from_view(
    view: View, bounds: Float[np.ndarray, "2 3"], *, margin: float = 0.06, field_of_view: float = 12.0
) -> Camera:
    """As `camera_for_points`, framing the box between the corners `bounds`."""
    low, high = np.asarray(bounds, dtype=np.float64)
    corners = np.stack(np.meshgrid(*np.stack([low, high], axis=1), indexing="ij"), axis=-1).reshape(-1, 3)
    return camera_for_points(view, corners, margin=margin, field_of_view=field_of_view)


def _axes(turn: float, height: float) -> Float[np.ndarray, "3 3"]:
    """Rows right, up and towards the viewer, for a viewer at these angles (radians)."""
    right = np.array([math.cos(turn), 0.0, -math.sin(turn)])
    viewer = np.array([math.sin(turn) * math.cos(height), math.sin(height), math.cos(turn) * math.cos(height)])
    return np.stack([right, np.cross(viewer, right), viewer])


def _distance(offsets: Float[np.ndarray, "n 3"], field_of_view: float) -> float:
    """Distance at which the larger extent fills the angle; the viewer stays outside the points."""
    if field_of_view == 0:
        return math.inf
    half = np.abs(offsets[:, :2]).max()
    return float(max(half / math.tan(math.radians(field_of_view) / 2), 2 * offsets[:, 2].max()))
