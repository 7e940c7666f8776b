"""What lies inside: channels that come last, and the colours of a picture, which all have the same taps."""

from __future__ import annotations

import numpy as np

import cytconv

from .common import DIRECTIONS, GEOMETRIES, warm


class ChannelsLast:
    """Beside `directions`, where channels come first."""

    params = [["U-Net", "FSRCNN", "depthwise", "3-D"], list(DIRECTIONS)]
    param_names = ["geometry", "direction"]

    def setup(self, geometry: str, direction: str) -> None:
        self.call = warm(GEOMETRIES[geometry], direction, channels="last", workers=1)

    def time_channels_last(self, geometry: str, direction: str) -> None:
        self.call()


class Pictures:
    """512 x 512 pixels of three colours."""

    params = [[(2, 2), (3, 1), (4, 2)], list(DIRECTIONS)]
    param_names = ["taps, stride", "direction"]

    def setup(self, kernel: tuple[int, int], direction: str) -> None:
        taps, stride = kernel
        keywords = {"stride": stride, "axes": (0, 1), "workers": 1}
        x, w = np.ones((512, 512, 3), np.float32), np.ones((taps, taps), np.float32)
        y = cytconv.conv_transpose(x, w, **keywords)
        self.call = {
            "forward": lambda: cytconv.conv_transpose(x, w, **keywords),
            "adjoint": lambda: cytconv.conv_transpose_adjoint(y, w, **keywords),
            "weights": lambda: cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=w.shape, **keywords),
        }[direction]
        self.call()

    def time_picture(self, kernel: tuple[int, int], direction: str) -> None:
        self.call()
