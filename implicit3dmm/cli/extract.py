"""implicit3dmm extract: codes in, a mesh out."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import Device, open_device, tell


def extract(
    codes: Positional[Annotated[Path, arg(metavar="CODES")]],
    /,
    out: Path,
    model: str = "imhead",
    resolution: int = 256,
    dense: bool = False,
    device: Device = "auto",
) -> int:
    """Extracts the mesh of codes, in the canonical frame (1 unit = 200 mm of an average adult).

    Codes of a network of registered heads such as lamm give its own vertices; the options after --model are for fields.

    Args:
        codes: File codes.safetensors of a fit or a sample, or a head that an edit left.
        out: Mesh file to write: .ply, .obj, .stl, .glb or .off.
        model: Model that the codes belong to.
        resolution: Cells along the longest side of the model's box.
        dense: Evaluate the whole grid instead of the blocks that can hold the surface.
        device: Where to compute.
    """
    from implicit3dmm.extraction import cautions, extract_field
    from implicit3dmm.geometry.mesh import write_mesh
    from implicit3dmm.geometry.mesh_files import check_suffix
    from implicit3dmm.mesh_models.model import is_network_file
    from implicit3dmm.models import load_head, load_model, model_file

    check_suffix(out)
    if is_network_file(model_file(model)):
        return _registered(codes, out, model)
    loaded = load_model(model, device=open_device(device))
    result = extract_field(
        load_head(codes, loaded),
        loaded.field.bounds,
        resolution=resolution,
        band="dense" if dense else "narrow",
        device=loaded.device,
    )
    write_mesh(out, result.mesh)
    for caution in cautions(result):
        tell(caution)
    print(
        f"{out}: {len(result.mesh.vertices)} vertices, {result.evaluations} evaluations "
        f"({result.share:.1%} of the grid), bound on the slope {result.lipschitz}, seen {result.steepest:.2f}"
    )
    return 0


def _registered(codes: Path, out: Path, name: str) -> int:
    from implicit3dmm.editing.registered import decoded
    from implicit3dmm.geometry.mesh import write_mesh
    from implicit3dmm.mesh_models.model import load_network

    model = load_network(name)
    mesh = model.mesh(decoded(codes, model))
    write_mesh(out, mesh)
    print(f"{out}: {len(mesh.vertices)} registered vertices of {model.name}")
    return 0
