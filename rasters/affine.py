"""Affine maps of the plane."""

from typing import NamedTuple

import numpy as np


class Affine(NamedTuple):
    """An affine map of the plane, as GDAL's six numbers: x' = x0 + xx * x + xy * y, y' = y0 + yx * x + yy * y."""

    x0: float
    xx: float
    xy: float
    y0: float
    yx: float
    yy: float

    def __call__(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points; `x`, `y` and the results have the same shape."""
        return self.x0 + self.xx * x + self.xy * y, self.y0 + self.yx * x + self.yy * y

    def after(self, first: "Affine") -> "Affine":
        """Return the map that applies `first`, then this one."""
        linear = np.array([[self.xx, self.xy], [self.yx, self.yy]])
        (xx, xy), (yx, yy) = linear @ [[first.xx, first.xy], [first.yx, first.yy]]
        x0, y0 = linear @ [first.x0, first.y0] + [self.x0, self.y0]
        return Affine(*(float(number) for number in (x0, xx, xy, y0, yx, yy)))

    @property
    def steps(self) -> tuple[float, float]:
        """Lengths, in the grid that is mapped to, of one pixel to the right and one pixel down."""
        return float(np.hypot(self.xx, self.yx)), float(np.hypot(self.xy, self.yy))
