"""implicit3dmm sample: new heads from a model's prior."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from implicit3dmm.cli.common import Device, open_device, output_folder, progress, tell

if TYPE_CHECKING:
    import torch

    from implicit3dmm.geometry.mesh import Mesh
    from implicit3dmm.latents import Codes

Drawn = tuple["Mesh", "Codes", Sequence[str]]
"""A head, its codes, and what may be wrong with it."""

CANONICAL = "canonical frame, 1 unit = 200 mm"


def sample(
    out: Path,
    count: int = 6,
    model: str = "imhead",
    temperature: float = 0.7,
    expressions: float = 0.0,
    same: str | None = None,
    resolution: int = 192,
    seed: int = 0,
    device: Device = "auto",
) -> int:
    """Draws new heads: meshes and codes of each, and one picture of all.

    Args:
        out: Folder for the results.
        count: Number of heads.
        model: Released model or weights file, of a field or a network of registered heads.
        temperature: Standard deviations are scaled by it: 0 gives the mean head, 1 the training population.
        expressions: The same for expressions: 0 gives neutral heads.
        same: What all heads share, where a model's code has a part for it: identity or expression of 'adversarial'.
        resolution: Cells along the longest side of the meshes' box; registered heads have their own vertices.
        seed: Seed of the draws; equal seeds give equal heads.
        device: Where to compute; registered heads are made on the CPU.
    """
    import torch

    from implicit3dmm.errors import InputError
    from implicit3dmm.files import staged_folder
    from implicit3dmm.geometry.mesh import write_mesh
    from implicit3dmm.mesh_models.model import is_network_file
    from implicit3dmm.models import model_file, save_codes
    from implicit3dmm.render import camera_for_points, grid, render, write_png

    spreads = 0 <= temperature < float("inf") and 0 <= expressions < float("inf")
    if count < 1 or not spreads or not 0 <= seed < 2**63:
        raise InputError(
            f"count {count}, temperature {temperature}, expressions {expressions}, seed {seed}: give at least 1 head, "
            "and temperatures and a seed of 0 or more"
        )
    generator = torch.Generator().manual_seed(seed)
    if is_network_file(model_file(model)):
        if expressions:
            raise InputError(f"{model} draws people and their expressions together; leave --expressions out")
        name, frame, heads = _registered(model, count, temperature, same, generator)
    elif same is not None:
        raise InputError(f"--same {same} is for networks of registered heads such as adversarial; {model} is a field")
    else:
        spread = {"temperature": temperature, "expressions": expressions, "generator": generator}
        frame = CANONICAL
        name, heads = _extracted(model, count, resolution, open_device(device), spread)
    rows = []
    with output_folder(out), staged_folder(out) as folder:
        for number, (mesh, codes, said) in zip(progress("sampling")(range(count)), heads, strict=True):
            for caution in said:
                tell(f"head {number}: {caution}")
            write_mesh(folder / f"head_{number:03d}.ply", mesh)
            save_codes(folder / f"head_{number:03d}.safetensors", codes, model=name)
            views = ("front", "three_quarter")
            rows.append([render(mesh, camera=camera_for_points(v, mesh.vertices), size=(240, 290)) for v in views])
        columns = [image for row in rows for image in row]
        write_png(folder / "heads.png", grid([columns[i : i + 6] for i in range(0, len(columns), 6)]))
    print(f"{count} heads in {out}, {frame}")
    return 0


def _extracted(
    model: str, count: int, resolution: int, device: str, spread: dict[str, Any]
) -> tuple[str, Iterator[Drawn]]:
    """Heads of a field, extracted one by one."""
    from implicit3dmm.extraction import cautions, extract
    from implicit3dmm.models import load_model

    loaded = load_model(model, device=device)
    drawn = loaded.prior.sample(count, **spread)

    def heads() -> Iterator[Drawn]:
        for number in range(count):
            codes = {name: table[number : number + 1] for name, table in drawn.items()}
            extraction = extract(loaded, codes, resolution=resolution)
            yield extraction.mesh, codes, cautions(extraction)

    return loaded.name, heads()


def _registered(
    model: str, count: int, temperature: float, same: str | None, generator: "torch.Generator"
) -> tuple[str, str, Iterator[Drawn]]:
    """Heads of a network of registered heads; all have its topology."""
    from implicit3dmm.mesh_models.model import load_network

    loaded = load_network(model)
    codes = loaded.network.sample(count, temperature=temperature, generator=generator)
    if same is not None:
        place = loaded.network.place(same)
        codes[:, place] = codes[:1, place]
    frame = CANONICAL if "recipe" in loaded.info else "frame of the meshes that it was trained on, 1 unit = 200 mm"
    heads = ((loaded.mesh(loaded.decode(code.numpy())[0]), {"head": code}, ()) for code in codes.split(1))
    return loaded.name, frame, heads
