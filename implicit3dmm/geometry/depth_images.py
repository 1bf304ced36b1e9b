"""Depth images: what a depth camera measured, brought into space.

The camera's frame is that of OpenCV and ROS: x to the right of the picture, y down, z along the view. The centre of the
pixel in column c and row r lies at (c, r), so that a measured depth z there stands for the point
((c - cx) z / fx, (r - cy) z / fy, z). Distortion of the lens is not undone.
"""

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from implicit3dmm.errors import InputError
from implicit3dmm.geometry.mesh import MIN_SCAN_POINTS, Mesh
from implicit3dmm.geometry.mesh_arrays import not_of_format, short
from implicit3dmm.geometry.point_files import load_npy, load_npz

PICTURE_SUFFIXES = (".png", ".tif", ".tiff")
"""A file of these is a depth image, whatever it is called."""

_DEPTH_MODES = ("I;16", "I;16B", "I;16L", "I", "F")
"""Pillow's names for one channel of more than 8 bits."""

MM_OF_INTEGERS, MM_OF_FLOATS = 1.0, 1000.0
"""What depth cameras write where nothing else is said: 16-bit millimetres or metres as floats (ROS REP 118)."""

STEEPEST = 6.0
"""Between two neighbouring pixels the depth of one surface changes by at most so many pixel widths (80 degrees)..."""
NOISE_SHARE = 0.01
"""...and this share of the depth, which a camera's noise may add."""

LARGE_MM = 100.0
"""A layer of the picture that is wider or higher than this may be a head; a smaller one is a stray."""
BEFORE_MM, BEHIND_MM = 100.0, 200.0
"""Other layers are kept where their median depth lies so far before or behind that of the nearest large one."""
DEEPEST_MM = 500.0
"""Nothing further than this behind the front of the nearest large layer belongs to a head."""


class Intrinsics(NamedTuple):
    """A pinhole camera: focal lengths and principal point, in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def parse(cls, text: str) -> "Intrinsics":
        """Reads "FX,FY,CX,CY".

        Raises:
            InputError: these are not four numbers of a camera.
        """
        try:
            numbers = [float(word) for word in text.split(",")]
        except ValueError:
            numbers = []
        return cls.of(np.array(numbers), source=f"the intrinsics {text!r}")

    @classmethod
    def of(cls, values: np.ndarray, *, source: str) -> "Intrinsics":
        """Takes four numbers, or a 3 x 3 camera matrix.

        Raises:
            InputError: the values are neither, not finite, or a focal length is not above 0.
        """
        numbers = values[[0, 1, 0, 1], [0, 1, 2, 2]] if values.shape == (3, 3) else values
        if numbers.shape != (4,) or numbers.dtype.kind not in "fiu" or not np.isfinite(numbers).all():
            raise InputError(f"{source} are not four numbers; FX,FY,CX,CY in pixels were expected; correct them")
        if numbers[:2].min() <= 0:
            raise InputError(f"{source} have a focal length of {numbers[:2].min():g}; above 0 was expected; correct it")
        return cls(*(float(number) for number in numbers))


@dataclass(frozen=True, eq=False)
class DepthImage:
    """Depths along the view of each pixel.

    Attributes:
        depth_mm: millimetres; 0, negative and not-a-number are no measurement.
        intrinsics: of the camera.
        file: where it came from; None for one that was made.
    """

    depth_mm: Float[np.ndarray, "h w"]
    intrinsics: Intrinsics
    file: str | None = None

    def surface(self) -> Mesh:
        """What may be a head in the picture, as a mesh in the camera's frame, mm.

        Pixels at a jump of the depth are dropped with their neighbours across it, because a camera mixes near and far
        there. Of the layers that remain, the nearest one larger than `LARGE_MM` is kept, with all that lies about as
        far away; a wall or a chair behind it goes. Neighbouring pixels are joined by triangles.

        Raises:
            InputError: nothing was measured, or nothing that large.
        """
        measured = np.isfinite(self.depth_mm) & (self.depth_mm > 0)
        if measured.sum() < MIN_SCAN_POINTS:
            raise InputError(
                f"the depth image has {measured.sum()} measured pixels; at least {MIN_SCAN_POINTS} are needed; "
                "0 and nan are no measurement"
            )
        depth = np.where(measured, self.depth_mm, np.nan).astype(np.float64)
        kept = self._nearest_layer(depth, measured & ~self._beside_jump(depth))
        return self._triangulated(depth, kept)

    def points(self, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
        """The point in space of each pixel at the given depths."""
        fx, fy, cx, cy = self.intrinsics
        rows, columns = np.indices(depth.shape)
        return np.stack([(columns - cx) * depth / fx, (rows - cy) * depth / fy, depth], axis=-1)

    def _beside_jump(self, depth: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
        """Pixels whose depth differs from a neighbour's in their row or column by more than a surface's can."""
        beside = np.zeros(depth.shape, bool)
        for axis, focal in ((0, self.intrinsics.fy), (1, self.intrinsics.fx)):
            near, far = _pairs(depth, axis)
            jump = np.abs(far - near) > np.fmin(near, far) * (STEEPEST / focal + NOISE_SHARE)
            one, other = _pairs(beside, axis)
            one |= jump
            other |= jump
        return beside

    def _nearest_layer(
        self, depth: Float[np.ndarray, "h w"], usable: Bool[np.ndarray, "h w"]
    ) -> Bool[np.ndarray, "h w"]:
        """The pixels of the nearest large layer and of those about as far away."""
        labels, count = _layers(usable)
        order = np.argsort(labels[usable], kind="stable")
        bounds = np.flatnonzero(np.diff(labels[usable][order], prepend=-1, append=count))
        places = self.points(depth)[usable][order]
        layers = [places[start:end] for start, end in pairwise(bounds)]
        medians = np.array([np.median(layer[:, 2]) for layer in layers])
        large = np.array([np.ptp(layer[:, :2], axis=0).max() > LARGE_MM for layer in layers])
        if not large.any():
            raise InputError(
                f"the depth image shows nothing larger than {LARGE_MM:g} mm; a head is; check the intrinsics and the "
                "unit of its depths"
            )
        nearest = np.flatnonzero(large)[medians[large].argmin()]
        front = np.quantile(layers[nearest][:, 2], 0.01)
        about = (medians > medians[nearest] - BEFORE_MM) & (medians < medians[nearest] + BEHIND_MM)
        return usable & about[labels] & (depth < front + DEEPEST_MM)

    def _triangulated(self, depth: Float[np.ndarray, "h w"], kept: Bool[np.ndarray, "h w"]) -> Mesh:
        """Two triangles for each square of four pixels, facing the camera."""
        number = np.full(depth.shape, -1)
        number[kept] = np.arange(kept.sum())
        a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
        faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))])
        faces = faces[(faces >= 0).all(axis=1)]
        if not len(faces):
            raise InputError("no four neighbouring pixels of the depth image lie on one surface; it is too noisy")
        return Mesh(self.points(depth)[kept], faces)


def is_depth_image(path: Path) -> bool:
    """Whether a file can only be a depth image: a picture, or an NPZ file with an array `depth`."""
    if path.suffix.lower() == ".npz" and path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return "depth.npy" in archive.namelist()
    return path.suffix.lower() in PICTURE_SUFFIXES


def read_depth_image(
    path: str | Path, *, intrinsics: Intrinsics | None = None, mm_per_unit: float | None = None
) -> DepthImage:
    """Reads a depth image: 16-bit PNG or TIFF, float TIFF, NPY, or NPZ with `depth` and perhaps `intrinsics`.

    Args:
        path: the file.
        intrinsics: of the camera; those of an NPZ file where not given.
        mm_per_unit: of the depths; by default 1 for whole numbers and 1000 for floats.

    Raises:
        InputError: the file cannot be read, is no depth image, or the camera or the unit is not known.
    """
    path = Path(path)
    if mm_per_unit is not None and not (np.isfinite(mm_per_unit) and mm_per_unit > 0):
        raise InputError(f"the depth unit is {mm_per_unit} mm; a finite number above 0 was expected; correct it")
    depth, camera = _read(path)
    if depth.ndim != 2 or depth.dtype.kind not in "fiu" or min(depth.shape) < 2:
        raise InputError(
            f"{path.name} has shape {depth.shape} of {depth.dtype}; a depth image is (rows, columns) of real numbers; "
            "give the depths alone"
        )
    if intrinsics is None and camera is None:
        raise InputError(f"{path.name} is a depth image without its camera; add --intrinsics FX,FY,CX,CY in pixels")
    unit = mm_per_unit or (MM_OF_FLOATS if depth.dtype.kind == "f" else MM_OF_INTEGERS)
    camera = intrinsics or Intrinsics.of(camera, source=f"{path.name}: the intrinsics")
    return DepthImage(depth.astype(np.float64) * unit, camera, str(path))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The depths as they stand in the file, and the camera where it has one."""
    try:
        match path.suffix.lower():
            case ".npy":
                return load_npy(path), None
            case ".npz":
                arrays = load_npz(path, ("depth", "intrinsics"))
            case suffix if suffix in PICTURE_SUFFIXES:
                return _read_picture(path), None
            case _:
                known = " ".join((*PICTURE_SUFFIXES, ".npy", ".npz"))
                raise InputError(f"{path.name} is no depth image; {known} were expected; leave the intrinsics out")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or 'it is damaged'}; check the file") from None
    if "depth" not in arrays:
        raise InputError(f"{path.name} has no array 'depth'; a depth image was expected; save it by that name")
    return arrays["depth"], arrays.get("intrinsics")


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode in _DEPTH_MODES:
                return np.asarray(image)
            mode = image.mode
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise not_of_format(path, short(error)) from None
    raise InputError(
        f"{path.name} is a picture of mode {mode}, of colours or 8 bits; a depth image has one channel of 16 bits "
        "or of floats; give the depths, not the colours"
    )


def _pairs(values: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Views of each pixel and of its next neighbour along an axis."""
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])


def _layers(usable: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, "h w"], int]:
    """Number of the connected layer of each pixel that is usable, from 0, and how many there are.

    After the pixels beside jumps have gone, neighbours that are left lie on one surface.
    """
    number = np.arange(usable.size).reshape(usable.shape)
    links = []
    for axis in (0, 1):
        one, other = _pairs(usable, axis)
        start, end = _pairs(number, axis)
        links.append((start[one & other], end[one & other]))
    rows, columns = (np.concatenate(ends) for ends in zip(*links, strict=True))
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(usable.size, usable.size))
    labels = connected_components(graph, directed=False)[1].reshape(usable.shape)
    used, dense = np.unique(labels[usable], return_inverse=True)
    labels[:] = 0
    labels[usable] = dense
    return labels, len(used)
