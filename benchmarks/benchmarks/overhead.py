"""What a call costs where there is next to nothing to compute."""

from __future__ import annotations

import itertools

import numpy as np

import cytconv

from .common import DIRECTIONS, GEOMETRIES, Call, public, warm


def thousand(call: Call) -> None:
    for _ in range(1000):
        call()


class TinyCalls:
    """A thousand calls on 2 x 3 samples and 2 x 2 taps: milliseconds in the graphs are microseconds of a call.

    asv times one call by itself where there is a `setup`, and the clock's own time would show.
    """

    def setup(self) -> None:
        article = GEOMETRIES["article"]
        self.forward, self.adjoint, self.weights = (warm(article, d) for d in DIRECTIONS)

    def time_thousand_forward(self) -> None:
        thousand(self.forward)

    def time_thousand_adjoint(self) -> None:
        thousand(self.adjoint)

    def time_thousand_weight_adjoint(self) -> None:
        thousand(self.weights)


class TinyLayers:
    """A thousand calls of 4 -> 4 channels and 8 x 8 samples: as they come, with a bias, into an array, of complex."""

    params = [["plain", "bias", "out", "complex"]]
    param_names = ["with"]

    def setup(self, extra: str) -> None:
        dtype = np.complex64 if extra == "complex" else np.float32
        x, w = np.ones((1, 4, 8, 8), dtype), np.ones((4, 4, 2, 2), dtype)
        options = {"bias": np.ones(4, dtype)} if extra == "bias" else {}
        if extra == "out":
            options["out"] = np.empty((1, 4, 16, 16), dtype)
        self.call = lambda: cytconv.conv_transpose(x, w, stride=2, channels="first", workers=1, **options)
        self.call()

    def time_thousand_layers(self, extra: str) -> None:
        thousand(self.call)


class TinyProducts:
    """The same with a `ConvTranspose` that was made before."""

    def setup(self) -> None:
        operator = public("ConvTranspose")(np.ones((2, 2)), (2, 3), stride=2)
        x = np.ones(operator.shape[1])
        self.product = lambda: operator @ x
        self.product()

    def time_thousand_products(self) -> None:
        thousand(self.product)


class NewShapes:
    """Calls with lengths that were not there before, so each is planned anew; fifty to a sample."""

    lengths = itertools.count(7)

    def setup(self) -> None:
        self.w = np.ones((4, 4))
        self.x = [np.ones((5, next(self.lengths))) for _ in range(50)]

    def time_fifty_new_shapes(self) -> None:
        for x in self.x:
            cytconv.conv_transpose(x, self.w, stride=2)


def timeraw_import() -> str:
    """A new interpreter, up to the first function that can be called; numpy is most of it."""
    return "import cytconv"


def timeraw_import_operator() -> str:
    return "import cytconv; cytconv.ConvTranspose"


timeraw_import.number = timeraw_import_operator.number = 1
timeraw_import_operator.setup = lambda: public("ConvTranspose")
