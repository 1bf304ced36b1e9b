"""implicit3dmm demo: the main job on what the package ships."""

from pathlib import Path

from implicit3dmm.cli.common import Device


def demo(out: Path = Path("demo"), device: Device = "auto") -> int:
    """Fits the released model to the shipped scan: a held-out head, cut, noisy, with holes and shoulders, unknown pose.

    Args:
        out: Folder for the results.
        device: Where to compute.
    """
    from implicit3dmm.cli.fit import fit
    from implicit3dmm.resources import asset

    return fit((asset("example_scan.ply"),), out=out, device=device)
