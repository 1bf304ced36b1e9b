"""Files of a fit: what is read to start it, and what it leaves."""

import io
import json
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float

from implicit3dmm.errors import InputError
from implicit3dmm.evaluation.results import write_json
from implicit3dmm.files import staged_folder
from implicit3dmm.fitting.head_fit import HeadFit
from implicit3dmm.fitting.job import FAR_MM
from implicit3dmm.geometry.mesh import write_mesh
from implicit3dmm.geometry.mesh_arrays import short
from implicit3dmm.geometry.similarity import Similarity
from implicit3dmm.models import save_codes
from implicit3dmm.render import error_scale, fit_picture, write_png

LANDMARKS = 68


def save_fit(result: HeadFit, folder: str | Path) -> None:
    """Writes mesh.ply, codes.safetensors, picture.png and report.json: all four or none.

    Args:
        result: the fit.
        folder: where; made if missing.

    Raises:
        InputError: the folder cannot be written to.
    """
    with staged_folder(folder) as staged:
        write_mesh(staged / "mesh.ply", result.mesh, scalars={"confidence": result.confidence})
        save_codes(staged / "codes.safetensors", result.codes, model=result.report["model"])
        write_png(staged / "picture.png", picture(result))
        write_json(staged / "report.json", result.report)


def picture(result: HeadFit) -> np.ndarray:
    """Scan, fit and error map side by side, from the front, obliquely and from the side."""
    error = result.report["error"]
    caption = [text[0].upper() + text[1:] + "." for text in result.report["assumptions"]]
    if "scan_mean_mm" in error:
        caption.insert(
            0,
            f"Distance of the scan to the fit, above the neck: mean {error['scan_mean_mm']:.2f} mm, median "
            f"{error['scan_median_mm']:.2f} mm, 95 % below {error['scan_p95_mm']:.2f} mm. "
            f"Grey: further than {FAR_MM:g} mm.",
        )
    if not result.is_head:
        caption.insert(0, f"NO HEAD: {result.report['head']['reason']}.")
    return fit_picture(
        result.scan.transformed(result.similarity),
        result.mesh.transformed(result.similarity),
        error_mm=np.where(result.distance_mm < FAR_MM, result.distance_mm, np.nan),
        caption=caption,
        scale=error_scale(_limit_mm(error)),
        views=("front", "three_quarter", "profile"),
    )


def _limit_mm(error: dict[str, float]) -> float:
    """End of the colour scale: a round number that nearly all of the head lies below."""
    wanted = 1.5 * error.get("scan_p95_mm", FAR_MM)
    return next((limit for limit in (1.0, 2.0, 3.0, 5.0, 10.0) if wanted <= limit), FAR_MM)


def read_transform(path: str | Path) -> Similarity:
    """Reads a 4 x 4 matrix from the scan's frame to the canonical one (.txt, .npy or .json).

    Raises:
        InputError: the file cannot be read, or the matrix is no similarity.
    """
    return Similarity.from_matrix(_as_array(_read(path), path, (4, 4)))


def read_landmarks(path: str | Path) -> Float[np.ndarray, "68 3"]:
    """Reads the 68 iBUG landmarks in the scan's frame, NaN where unknown.

    A .txt or .npy file has 68 rows of three numbers; a .json file may have null for an unknown number, or map the
    known landmarks' numbers, from 0, to coordinates, such as {"30": [x, y, z], ...}.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    values = _read(path)
    if isinstance(values, dict):
        return _numbered_rows(values, path)
    return _as_array(values, path, (LANDMARKS, 3))


def _numbered_rows(values: dict[str, object], path: str | Path) -> Float[np.ndarray, "68 3"]:
    numbers = {str(number): number for number in range(LANDMARKS)}
    rows = np.full((LANDMARKS, 3), np.nan)
    for key, place in values.items():
        if key not in numbers:
            raise InputError(f"{path}: there is no landmark {key!r}; 0 to {LANDMARKS - 1} were expected; correct it")
        rows[numbers[key]] = _as_array(place, f"{path}: landmark {key}", (3,))
    return rows


def _read(path: str | Path) -> object:
    """The numbers of a file, of any shape, or the mapping that a JSON file holds."""
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".npy":
            return np.load(io.BytesIO(data), allow_pickle=False)
        if path.suffix == ".json":
            return json.loads(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # NumPy warns of a file without data; its shape tells
            return np.loadtxt(io.StringIO(data.decode()), ndmin=2)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the name") from None
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged or no such file ({short(error)}); {_EXPECTED}") from None


def _as_array(values: object, source: str | Path, shape: tuple[int, ...]) -> Float[np.ndarray, "*s"]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        raise InputError(f"{source} does not hold numbers alone; {_EXPECTED}") from None
    if array.shape != shape:
        raise InputError(f"{source} holds numbers of shape {array.shape}; {shape} was expected; correct it")
    return array


_EXPECTED = "a .txt, .npy or .json file of numbers was expected; write it again"
