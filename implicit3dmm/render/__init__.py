"""Software pictures: no display, no OpenGL, no GPU; equal input gives equal bytes."""

from implicit3dmm.render.camera import Camera, View, camera_for_points, camera_from_view
from implicit3dmm.render.colormap import ColorScale, color_bar, error_scale, signed_scale
from implicit3dmm.render.comparison import error_limit, fit_picture
from implicit3dmm.render.curves import plot_curves
from implicit3dmm.render.pictures import Picture, grid, stack, strip, text_block, with_margin, write_png
from implicit3dmm.render.renderer import paint, render, visible_surface

__all__ = [
    "Camera",
    "ColorScale",
    "Picture",
    "View",
    "camera_for_points",
    "camera_from_view",
    "color_bar",
    "error_limit",
    "error_scale",
    "fit_picture",
    "grid",
    "paint",
    "plot_curves",
    "render",
    "signed_scale",
    "stack",
    "strip",
    "text_block",
    "visible_surface",
    "with_margin",
    "write_png",
]
