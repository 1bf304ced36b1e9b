"""implicit3dmm fit: scans in, codes, meshes and reports out."""

import json as json_format
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import Device, open_device, output_folder, progress, tell


def fit(
    scans: Positional[Annotated[tuple[Path, ...], arg(metavar="SCAN ...")]],
    /,
    out: Path,
    model: str = "imhead",
    unit: str = "auto",
    transform: Annotated[Path | None, arg(metavar="PATH")] = None,
    landmarks: Annotated[Path | None, arg(metavar="PATH")] = None,
    intrinsics: Annotated[str | None, arg(metavar="FX,FY,CX,CY")] = None,
    depth_unit: Annotated[float | None, arg(metavar="MM")] = None,
    identity: Literal["each", "shared", "sequence"] = "each",
    known: Annotated[Path | None, arg(metavar="CODES")] = None,
    resolution: int = 256,
    steps: int = 10,
    seed: int = 0,
    device: Device = "auto",
    json: bool = False,
) -> int:
    """Fits a model to head scans.

    For each scan the folder gets mesh.ply (the fitted head in the scan's own frame), codes.safetensors, report.json
    and picture.png; of several scans each gets a folder of its own, named after its file. A scan that cannot be used
    is named, and the others are fitted all the same. A scan that shows no head is fitted, marked in its report and
    its picture, and makes the exit code 3.

    Args:
        scans: Scans: .ply .obj .stl .glb .gltf .off .xyz .npy .npz, meshes or points, any pose and unit; or depth
            images: .png and .tif of 16 bits or floats, .npy, .npz with depth and intrinsics.
        out: Folder for the results.
        model: Released model or weights file.
        unit: Unit of the scans: auto, mm, cm, m, or millimetres per unit.
        transform: File with a 4 x 4 matrix from the scan to the canonical frame (.txt, .npy or .json).
        landmarks: File with the 68 iBUG landmarks in the scan's frame, nan for unknown ones (.txt, .npy or .json).
        intrinsics: Camera of depth images: focal lengths and principal point in pixels.
        depth_unit: Millimetres in a unit of the depth images; by default 1 for whole numbers and 1000 for floats.
        identity: Of several scans, whether each shows a person of its own, all show one person (shared), or they are
            frames of one person in their order, whose expression is followed (sequence).
        known: Codes of an earlier fit of the same person, such as of a neutral scan, whose identity is held.
        resolution: Cells along the longest side of the mesh's box.
        steps: Steps of the solver.
        seed: Seed of the choice of points.
        device: Where to compute.
        json: Print the report as JSON and nothing else; of several scans a list of reports in their order.
    """
    from implicit3dmm.errors import InputError
    from implicit3dmm.evaluation.results import plain_json
    from implicit3dmm.fitting import FitConfig, HeadFit, fit_sequence, fit_together
    from implicit3dmm.fitting import fit as fit_scan
    from implicit3dmm.fitting.files import read_landmarks, read_transform, save_fit
    from implicit3dmm.geometry.depth_images import DepthImage, Intrinsics, read_depth_image
    from implicit3dmm.models import load_codes, load_model, subject_codes

    folders = _folders(scans, out)
    config = FitConfig(seed=seed, steps=steps)
    config.validate()
    pose = {
        "transform": read_transform(transform) if transform else None,
        "landmarks": read_landmarks(landmarks) if landmarks else None,
    }
    camera = Intrinsics.parse(intrinsics) if intrinsics is not None else None
    loaded = load_model(model, device=open_device(device))
    held = subject_codes(load_codes(known, loaded), loaded) if known else None

    def opened(scan: Path) -> Path | DepthImage:
        if camera is None and depth_unit is None:
            return scan
        return read_depth_image(scan, intrinsics=camera, mm_per_unit=depth_unit)

    options = {"unit": _unit(unit), "config": config, "resolution": resolution}

    def attempted(work: Callable[[Path], Any], scan: Path) -> Any:
        try:
            return work(scan)
        except InputError as error:
            return error

    def fit_one(scan: Path) -> HeadFit:
        return fit_scan(opened(scan), loaded, held=held, progress=progress(f"fitting {scan.name}"), **pose, **options)

    def all_fits() -> Iterable[HeadFit | InputError]:
        if identity == "each":
            return (attempted(fit_one, scan) for scan in scans)
        if any(value is not None for value in pose.values()):
            raise InputError("a pose is given for several scans of one person; each has its own; leave it out")
        if identity == "sequence":
            return fit_sequence((attempted(opened, scan) for scan in scans), loaded, held=held, **options)
        if held is not None:
            raise InputError("known codes leave nothing to share; give --identity sequence, or leave --known out")
        return fit_together([opened(scan) for scan in scans], loaded, progress=progress("fitting"), **options)

    reports, results = [], iter(all_fits())
    for scan, folder in zip(scans, folders, strict=True):
        try:
            with output_folder(folder):
                result = next(results)
                if isinstance(result, InputError):
                    raise result
                save_fit(result, folder)
        except InputError as error:
            if len(scans) == 1:
                raise
            tell(f"{scan}: {error}")
            reports.append({"scan": {"file": str(scan)}, "refused": str(error)})
            continue
        reports.append(result.report)
        if not result.is_head:
            tell(
                f"{scan}: no head was found; {result.report['head']['reason']}; {folder} keeps the fit, marked as such"
            )
        if not json:
            print(summary(result.report, folder))
    if json:
        document = plain_json(reports if len(scans) > 1 else reports[0])
        print(json_format.dumps(document, allow_nan=False, indent=1))
    return _exit_code(reports)


def _exit_code(reports: list[dict[str, Any]]) -> int:
    """2 where a scan was refused, else 3 where one shows no head, else 0."""
    if any("refused" in report for report in reports):
        return 2
    return 0 if all(report["is_head"] for report in reports) else 3


def summary(report: dict[str, Any], folder: Path) -> str:
    """What a person wants to know of a fit, in a few lines."""
    error, mesh, seconds = report["error"], report["mesh"], report["seconds"]
    lines = [
        f"{report['scan']['file']}: {report['scan']['points']} points, fitted with {report['model']}",
        *([] if report["is_head"] else [f"  NO HEAD: {report['head']['reason']}"]),
        *(f"  assumed: {text}" for text in report["assumptions"]),
        *(f"  warning: {text}" for text in report["warnings"]),
        *error_lines(error),
        f"  {report['evidence']['within@5mm']:.0%} of the head lie within 5 mm of what the scan shows",
        f"  mesh: {mesh['vertices']} vertices, {'watertight' if mesh['watertight'] else 'not watertight'}; "
        f"size {report['alignment']['size']:.2f} of an average adult",
        f"  {seconds['total']:.1f} s ({seconds['processor']:.1f} processor seconds); results in {folder}",
    ]
    return "\n".join(lines)


def error_lines(error: dict[str, float]) -> list[str]:
    """The figures of a fit's distances."""
    if "scan_mean_mm" not in error:
        return ["  no point of the scan lies near the fit"]
    return [
        f"  distance of the scan to the fit, above the neck: mean {error['scan_mean_mm']:.2f} mm, "
        f"median {error['scan_median_mm']:.2f}, 95 % below {error['scan_p95_mm']:.2f}"
        f" ({error['left_out']:.0%} of the points left out as further than 20 mm)"
    ]


def _folders(scans: tuple[Path, ...], out: Path) -> list[Path]:
    """Where the results of each scan go.

    Raises:
        InputError: no scan is given, or two would share a folder.
    """
    from implicit3dmm.errors import InputError

    if not scans:
        raise InputError("no scan is given; name one or more files: implicit3dmm fit SCAN ... --out DIR")
    names = [scan.stem for scan in scans]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f"two scans are called {twice!r}; each gets a folder of that name in {out}; fit them one by one"
        )
    return [out / name for name in names] if len(scans) > 1 else [out]


def _unit(text: str) -> str | float:
    """A unit's name, or millimetres per unit."""
    try:
        return float(text)
    except ValueError:
        return text
