"""The workloads: what is convolved with what, and how much work that is at least."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIRECTIONS", "NETWORKS", "WORKLOADS", "Workload", "random_layers"]

DIRECTIONS = ("forward", "adjoint", "weights")
USUAL = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Workload:
    """One transposed convolution, its parameters the same along every axis."""

    name: str
    x: Shape  # (N, C_in, *n), also for plain arrays
    w: Shape  # (C_in, C_out // groups, *K)
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    dilation: int = 1
    groups: int = 1
    dtype: str = "float32"
    plain: bool = False  # one array without batch and channels, to a library that knows such arrays
    quick: bool = False  # one of the few for --quick

    @property
    def rank(self) -> int:
        """Axes that are convolved."""
        return len(self.x) - 2

    @property
    def y(self) -> Shape:
        """Shape of the result of the forward direction."""
        spatial = (
            (n - 1) * self.stride + self.dilation * (k - 1) + 1 - 2 * self.padding + self.output_padding
            for n, k in zip(self.x[2:], self.w[2:], strict=True)
        )
        return (self.x[0], self.w[1] * self.groups, *spatial)

    @property
    def keywords(self) -> dict[str, int]:
        """What a call must say, as it is not the default."""
        return {name: value for name, usual in USUAL.items() if (value := getattr(self, name)) != usual}

    @property
    def complex(self) -> bool:
        return self.dtype.startswith("complex")

    @property
    def products(self) -> int:
        """Multiplications of a sample by a weight, those that padding crops included."""
        return math.prod(self.x) * math.prod(self.w[1:])

    @property
    def flops(self) -> int:
        """Real operations: a multiplication and an addition for each product, four of both if it is complex."""
        return (8 if self.complex else 2) * self.products

    @property
    def traffic(self) -> int:
        """Bytes that must be read or written at least once, in any direction: two arrays are given, one is made."""
        return sum(math.prod(shape) for shape in (self.x, self.w, self.y)) * np.dtype(self.dtype).itemsize

    def arrays(self) -> tuple[Array, Array, Array]:
        """Samples, weights and a `y` for the adjoints; the same at every call, in every process."""
        rng = np.random.default_rng(0)
        real = np.finfo(self.dtype).dtype  # at once, as a copy would count where memory is measured

        def normal(shape: Shape) -> Array:
            values: Array = rng.standard_normal(shape, real)
            return values + 1j * rng.standard_normal(shape, real) if self.complex else values

        return normal(self.x), normal(self.w), normal(self.y)

    def taps(self) -> Iterator[tuple[Shape, tuple[slice, ...], tuple[slice, ...]]]:
        """Every tap, with the samples that it carries somewhere and the places in `y` that it carries them to."""

        def reach(n: int, m: int, k: int) -> tuple[int, slice, slice]:
            shift = k * self.dilation - self.padding  # sample i goes to i*stride + shift, which must be in 0..m-1
            first, last = max(0, -(shift // self.stride)), min(n - 1, (m - 1 - shift) // self.stride)
            start = first * self.stride + shift
            return k, slice(first, last + 1), slice(start, last * self.stride + shift + 1, self.stride)

        axes = [
            [tap for k in range(size) if (tap := reach(n, m, k))[1].start < tap[1].stop]
            for n, m, size in zip(self.x[2:], self.y[2:], self.w[2:], strict=True)
        ]
        for combination in itertools.product(*axes):
            tap, samples, outputs = zip(*combination, strict=True)
            yield tap, samples, outputs


def layer(name: str, batch: int, c_in: int, c_out: int, n: Shape, k: int, **keywords: Any) -> Workload:
    """Arrays with channels; `c_out` counts those of one group."""
    return Workload(name, (batch, c_in, *n), (c_in, c_out, *(k,) * len(n)), **keywords)


def plain(name: str, n: Shape, k: int, dtype: str, **keywords: Any) -> Workload:
    return layer(name, 1, 1, 1, n, k, dtype=dtype, plain=True, **keywords)


def random_layers(number: int, seed: int) -> Iterator[Workload]:
    """Layers of networks that nobody chose: 1-D to 3-D, depthwise ones among them."""
    rng = random.Random(seed)
    while number > 0:
        rank, stride = rng.choice((1, 2, 2, 2, 3)), rng.choice((1, 1, 2, 2, 2, 3, 4))
        k = rng.choice((1, 2, 3, 3, 4, 4, 5, 7, 8) if rank < 3 else (1, 2, 3, 3, 4))
        dilation = rng.choice((1, 1, 1, 2)) if stride == 1 else 1
        n = rng.choice({1: (16, 100, 512, 4096), 2: (4, 7, 14, 28, 56, 112, 200), 3: (4, 8, 12, 24)}[rank])
        c_in, c_out = (rng.choice((1, 3, 8, 16, 32, 64, 128, 256)) for _ in range(2))
        groups = rng.choice((1, 1, 1, 1, 1, c_in))
        batch, padding = rng.choice((1, 1, 1, 4, 8)), rng.choice((0, 1, (k - 1) * dilation // 2))
        some = Workload(
            f"{batch}, {c_in}->{c_out if groups == 1 else 'each'}, {'x'.join([str(n)] * rank)}; "
            f"k{k} s{stride} p{padding} d{dilation}",
            (batch, c_in, *(n,) * rank),
            (c_in, c_out if groups == 1 else 1, *(k,) * rank),
            stride=stride,
            padding=padding,
            output_padding=rng.randrange(stride),
            dilation=dilation,
            groups=groups,
        )
        if min(some.y) > 0 and 2e4 < some.products < 1.5e9:
            number -= 1
            yield some


# fmt: off
WORKLOADS = (
    plain("one channel 2x3, k2 s2 (call overhead)", (2, 3), 2, "float32", stride=2, quick=True),
    layer("1, 1024->512, 28x28; k2 s2", 1, 1024, 512, (28, 28), 2, stride=2),
    layer("1, 512->256, 52x52; k2 s2", 1, 512, 256, (52, 52), 2, stride=2),
    layer("1, 256->128, 100x100; k2 s2", 1, 256, 128, (100, 100), 2, stride=2),
    layer("1, 128->64, 196x196; k2 s2", 1, 128, 64, (196, 196), 2, stride=2),
    layer("16, 100->1024, 1x1; k4 s1", 16, 100, 1024, (1, 1), 4, quick=True),
    layer("16, 512->256, 8x8; k4 s2 p1", 16, 512, 256, (8, 8), 4, stride=2, padding=1),
    layer("16, 128->3, 32x32; k4 s2 p1", 16, 128, 3, (32, 32), 4, stride=2, padding=1),
    layer("4, 128->64, 64x64; k3 s2 p1 op1", 4, 128, 64, (64, 64), 3, stride=2, padding=1, output_padding=1),
    layer("4, 64->64, 64x64; k3 s1 p1", 4, 64, 64, (64, 64), 3, padding=1),
    layer("1, 56->1, 128x128; k9 s3 p4", 1, 56, 1, (128, 128), 9, stride=3, padding=4),
    layer("1, 512->256, 256; k16 s8 p4", 1, 512, 256, (256,), 16, stride=8, padding=4),
    layer("1, 128->64, 8192; k4 s2 p1", 1, 128, 64, (8192,), 4, stride=2, padding=1),
    layer("1, 1026->1, 512; k1024 s256", 1, 1026, 1, (512,), 1024, stride=256),
    layer("1, 64 depthwise, 128x128; k4 s2 p1", 1, 64, 1, (128, 128), 4, stride=2, padding=1, groups=64, quick=True),
    layer("1, 21 depthwise, 64x64; k16 s8 p4", 1, 21, 1, (64, 64), 16, stride=8, padding=4, groups=21),
    layer("1, 256->128, 12^3; k2 s2", 1, 256, 128, (12,) * 3, 2, stride=2),
    layer("1, 64->32, 24^3; k4 s2 p1", 1, 64, 32, (24,) * 3, 4, stride=2, padding=1),
    layer("1, 64->64, 64x64; k3 dilation 2", 1, 64, 64, (64, 64), 3, dilation=2),
    layer("4, 64->64, 64x64 float64; k3 s2 p1 op1", 4, 64, 64, (64, 64), 3, dtype="float64",
          stride=2, padding=1, output_padding=1),
    layer("1, 8->8, 12^4; k2 s2", 1, 8, 8, (12,) * 4, 2, stride=2),
    layer("1, 4->4, 12^4; k3 s1", 1, 4, 4, (12,) * 4, 3, quick=True),
    plain("one channel float64 1024x1024; k2 s2", (1024, 1024), 2, "float64", stride=2),
    plain("one channel float64 1024x1024; k4 s2 p1", (1024, 1024), 4, "float64", stride=2, padding=1),
    plain("one channel float64 1024x1024; k3 s1", (1024, 1024), 3, "float64"),
    plain("one channel float64 1024x1024; k9 s1", (1024, 1024), 9, "float64"),
    plain("one channel float64 512x512; k31 s1", (512, 512), 31, "float64"),
    plain("one channel float64 512x512; k31 s4", (512, 512), 31, "float64", stride=4),
    plain("one channel float32 1024x1024; k4 s2 p1", (1024, 1024), 4, "float32", stride=2, padding=1),
    plain("one channel complex128 512x512; k4 s2", (512, 512), 4, "complex128", stride=2, quick=True),
    plain("one channel float64 128^3; k2 s2", (128,) * 3, 2, "float64", stride=2),
    plain("one channel float64 96^3; k4 s2 p1", (96,) * 3, 4, "float64", stride=2, padding=1),
    plain("one channel float64 96^3; k5 s1", (96,) * 3, 5, "float64"),
    plain("one channel float64 2^20; k64 s4", (2**20,), 64, "float64", stride=4),
)

# Layers of networks that people train, or much like them, with small batches.
NETWORKS = (
    layer("DCGAN: 16, 100->512, 1x1; k4 s1", 16, 100, 512, (1, 1), 4),
    layer("DCGAN: 16, 512->256, 4x4; k4 s2 p1", 16, 512, 256, (4, 4), 4, stride=2, padding=1),
    layer("DCGAN: 16, 128->64, 16x16; k4 s2 p1", 16, 128, 64, (16, 16), 4, stride=2, padding=1),
    layer("DCGAN: 16, 64->3, 32x32; k4 s2 p1", 16, 64, 3, (32, 32), 4, stride=2, padding=1),
    layer("VAE: 8, 64->32, 14x14; k3 s2 p1 op1", 8, 64, 32, (14, 14), 3, stride=2, padding=1, output_padding=1),
    layer("VAE: 8, 32->1, 28x28; k3 s2 p1 op1", 8, 32, 1, (28, 28), 3, stride=2, padding=1, output_padding=1),
    layer("VAE: 64, 32->16, 7x7; k4 s2 p1", 64, 32, 16, (7, 7), 4, stride=2, padding=1),
    layer("FSRCNN x4: 1, 56->1, 64x64; k9 s4 p4 op3", 1, 56, 1, (64, 64), 9, stride=4, padding=4, output_padding=3),
    layer("super-resolution x4: 1, 64->3, 128x128; k4 s4", 1, 64, 3, (128, 128), 4, stride=4),
    layer("FCN-32s: 1, 21->21, 8x8; k64 s32 p16", 1, 21, 21, (8, 8), 64, stride=32, padding=16),
    layer("FCN-8s: 1, 21 depthwise, 32x32; k16 s8 p4", 1, 21, 1, (32, 32), 16, stride=8, padding=4, groups=21),
    layer("FCN: 1, 21->21, 16x16; k4 s2 p1", 1, 21, 21, (16, 16), 4, stride=2, padding=1),
    layer("U-Net: 4, 256->128, 32x32; k2 s2", 4, 256, 128, (32, 32), 2, stride=2),
    layer("U-Net: 1, 512->256, 16x16; k2 s2", 1, 512, 256, (16, 16), 2, stride=2),
    layer("U-Net: 1, 64->32, 128x128; k2 s2", 1, 64, 32, (128, 128), 2, stride=2),
    layer("segmentation head: 1, 32->2, 256x256; k2 s2", 1, 32, 2, (256, 256), 2, stride=2),
    layer("3-D U-Net: 1, 320->256, 4x4x4; k2 s2", 1, 320, 256, (4, 4, 4), 2, stride=2),
    layer("3-D U-Net: 1, 256->128, 8x8x8; k2 s2", 1, 256, 128, (8, 8, 8), 2, stride=2),
    layer("3-D U-Net: 1, 64->32, 32x32x32; k2 s2", 1, 64, 32, (32, 32, 32), 2, stride=2),
    layer("V-Net: 1, 128->64, 16x16x16; k2 s2", 1, 128, 64, (16, 16, 16), 2, stride=2),
    layer("3D-GAN: 4, 200->256, 1x1x1; k4 s1", 4, 200, 256, (1, 1, 1), 4),
    layer("3D-GAN: 4, 256->128, 4x4x4; k4 s2 p1", 4, 256, 128, (4, 4, 4), 4, stride=2, padding=1),
    layer("3D-GAN: 4, 128->64, 8x8x8; k4 s2 p1", 4, 128, 64, (8, 8, 8), 4, stride=2, padding=1),
    layer("3D-GAN: 4, 64->1, 32x32x32; k4 s2 p1", 4, 64, 1, (32, 32, 32), 4, stride=2, padding=1),
    layer("HiFi-GAN: 1, 512->256, 100; k16 s8 p4", 1, 512, 256, (100,), 16, stride=8, padding=4),
    layer("HiFi-GAN: 1, 256->128, 800; k16 s8 p4", 1, 256, 128, (800,), 16, stride=8, padding=4),
    layer("HiFi-GAN: 1, 128->64, 6400; k4 s2 p1", 1, 128, 64, (6400,), 4, stride=2, padding=1),
    layer("HiFi-GAN: 1, 64->32, 12800; k4 s2 p1", 1, 64, 32, (12800,), 4, stride=2, padding=1),
    layer("WaveGAN: 4, 256->128, 256; k25 s4 p11 op1", 4, 256, 128, (256,), 25, stride=4, padding=11, output_padding=1),
    layer("Demucs: 1, 512->256, 1000; k8 s4", 1, 512, 256, (1000,), 8, stride=4),
    layer("EnCodec: 1, 512->256, 75; k16 s8 p4", 1, 512, 256, (75,), 16, stride=8, padding=4),
    layer("EnCodec: 1, 64->32, 12000; k4 s2 p1", 1, 64, 32, (12000,), 4, stride=2, padding=1),
    layer("pix2pix: 1, 512->512, 2x2; k4 s2 p1", 1, 512, 512, (2, 2), 4, stride=2, padding=1),
    layer("pix2pix: 1, 1024->512, 16x16; k4 s2 p1", 1, 1024, 512, (16, 16), 4, stride=2, padding=1),
    layer("pix2pix: 1, 256->64, 64x64; k4 s2 p1", 1, 256, 64, (64, 64), 4, stride=2, padding=1),
    layer("CycleGAN: 1, 256->128, 64x64; k3 s2 p1 op1",
          1, 256, 128, (64, 64), 3, stride=2, padding=1, output_padding=1),
    layer("CycleGAN: 1, 128->64, 128x128; k3 s2 p1 op1",
          1, 128, 64, (128, 128), 3, stride=2, padding=1, output_padding=1),
    layer("style transfer: 1, 128->3, 128x128; k9 s1 p4", 1, 128, 3, (128, 128), 9, padding=4),
    layer("YOLO: 1, 128->128, 40x40; k2 s2", 1, 128, 128, (40, 40), 2, stride=2),
    layer("upsampling: 1, 256 depthwise, 32x32; k4 s2 p1", 1, 256, 1, (32, 32), 4, stride=2, padding=1, groups=256),
    layer("CenterNet: 1, 256->256, 16x16; k4 s2 p1", 1, 256, 256, (16, 16), 4, stride=2, padding=1),
    layer("pose estimation: 1, 256->256, 64x48; k4 s2 p1", 1, 256, 256, (64, 48), 4, stride=2, padding=1),
    layer("Mask R-CNN: 8, 256->256, 14x14; k2 s2", 8, 256, 256, (14, 14), 2, stride=2),
)
# fmt: on
