"""implicit3dmm register: heads in the template's own topology."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from implicit3dmm.cli.common import Device, open_device, tell


def register(
    head: Positional[Annotated[Path, arg(metavar="HEAD")]],
    /,
    out: Path,
    model: str = "imhead",
    resolution: int = 192,
    device: Device = "auto",
) -> int:
    """Gives a head in the template's topology: the same 14,642 vertices and faces for everybody.

    Of a scan the result stands in its own frame and unit, of codes in the canonical frame.

    Args:
        head: Scan to fit, or codes (.safetensors) of a fit, a sample or an edit.
        out: Mesh file to write: .ply, .obj, .stl, .glb or .off.
        model: Released model or weights file.
        resolution: Cells along the longest side of the box of the surface that the template is laid onto.
        device: Where to compute.
    """
    from implicit3dmm.editing.heads import open_head
    from implicit3dmm.extraction import at_rest, on_template
    from implicit3dmm.fitting.registration import registered_mesh
    from implicit3dmm.geometry.mesh import write_mesh
    from implicit3dmm.geometry.mesh_files import check_suffix
    from implicit3dmm.models import load_model

    check_suffix(out)
    loaded = load_model(model, device=open_device(device))
    opened = open_head(head, loaded)
    surface, warnings = opened.canonical_mesh(loaded, opened.field, resolution=resolution)
    for warning in warnings:
        tell(warning)
    rest = at_rest(opened.field, surface.vertices, device=loaded.device)
    known = on_template(opened.field, surface.vertices, device=loaded.device)
    mesh = registered_mesh(surface, rest, known).transformed(opened.placement)
    write_mesh(out, mesh)
    print(f"{out}: {len(mesh.vertices)} vertices and {len(mesh.faces)} faces, in the template's order")
    return 0
