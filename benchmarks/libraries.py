"""The libraries: for each a small class that makes calls, functions without arguments that compute a cell.

What a user would do once beforehand (convert arrays, conjugate them, arrange weights) is not part of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workloads import DIRECTIONS, Shape, Workload

__all__ = ["LIBRARIES", "Call", "Library", "operands", "reference"]

Array = NDArray[Any]
Call = Callable[[], Any]


class Library:
    """One way to compute the three directions."""

    version = ""
    directions: tuple[str, ...] = DIRECTIONS
    conjugates = False  # as the adjoints require; a library that does not is given the conjugate

    def __init__(self, threads: int) -> None:
        """Import the library; an ImportError says that it is absent."""
        self.threads = threads

    def supports(self, workload: Workload) -> bool:
        return True

    def array(self, a: Array, workload: Workload) -> Any:
        """An array of shape (N, C, *n), or the weights, in the form that the library works on."""
        return a

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        """What to time: it computes the unknown of x, w and y in that direction."""
        raise NotImplementedError  # every library has its own

    def numpy(self, result: Any) -> Array:
        return np.asarray(result)


class Cytconv(Library):
    """The functions, called as a user would."""

    conjugates = True

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import cytconv

        self.cytconv, self.version = cytconv, cytconv.__version__

    def array(self, a: Array, workload: Workload) -> Array:
        return a[0, 0] if workload.plain else a

    def keywords(self, workload: Workload) -> dict[str, Any]:
        return workload.keywords if workload.plain else {**workload.keywords, "channels": "first"}

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        keywords, kernel_shape = self.keywords(workload), workload.w[2:]
        return {
            "forward": lambda: self.cytconv.conv_transpose(x, w, **keywords),
            "adjoint": lambda: self.cytconv.conv_transpose_adjoint(y, w, **keywords),
            "weights": lambda: self.cytconv.conv_transpose_weight_adjoint(x, y, kernel_shape=kernel_shape, **keywords),
        }[direction]


class CytconvOperator(Cytconv):
    """`ConvTranspose`, which keeps the weights packed, as the sessions of the inference engines do."""

    directions = ("forward", "adjoint")

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        operator = self.cytconv.ConvTranspose(w, x.shape, **self.keywords(workload))
        adjoint = operator.H
        return (lambda: operator(x)) if direction == "forward" else (lambda: adjoint(y))


class CytconvChannelsLast(Cytconv):
    """The functions on arrays whose channels lie inside, as those of the other layout of PyTorch."""

    def supports(self, workload: Workload) -> bool:
        return not workload.plain and max(workload.x[1], workload.y[1]) > 1

    def keywords(self, workload: Workload) -> dict[str, Any]:
        return {**workload.keywords, "channels": "last"}

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) for a in (x, y))
        compute = super().call(workload, direction, x, w, y)
        if direction == "weights":
            return compute
        axes = (0, x.ndim - 1, *range(1, x.ndim - 1))
        return lambda: compute().transpose(axes)  # a view, as all others are compared


class Torch(Library):
    """PyTorch on tensors of its default layout."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, self.version = torch, torch.__version__

    def supports(self, workload: Workload) -> bool:
        return workload.rank <= 3

    def array(self, a: Array, workload: Workload) -> Any:
        return self.torch.from_numpy(a)

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        torch, rank, keywords = self.torch, workload.rank, workload.keywords
        spread = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        gather = getattr(torch.nn.functional, f"conv{rank}d")
        if direction == "forward":
            return lambda: spread(x, w, **keywords)
        if direction == "adjoint":
            keywords.pop("output_padding", None)  # which the size of y already says
            return lambda: gather(y, w, **keywords)
        if workload.complex:  # only autograd has it, which conjugates by itself
            with torch.enable_grad():
                w.requires_grad_()
                result = spread(x.conj().resolve_conj(), w, **keywords)
            return lambda: torch.autograd.grad(result, w, y, retain_graph=True)[0]
        names = ("stride", "padding", "dilation", "output_padding")
        stride, padding, dilation, more = ([getattr(workload, name)] * rank for name in names)
        options = (None, stride, padding, dilation, True, more, workload.groups, (False, True, False))
        return lambda: torch.ops.aten.convolution_backward(y, x, w, *options)[1]

    def numpy(self, result: Any) -> Array:
        return np.asarray(result.resolve_conj().numpy())


class TorchChannelsLast(Torch):
    """PyTorch on tensors that were converted to its other layout."""

    def supports(self, workload: Workload) -> bool:
        return workload.rank in (2, 3) and workload.x[1] > 1

    def array(self, a: Array, workload: Workload) -> Any:
        layouts = {2: self.torch.channels_last, 3: self.torch.channels_last_3d}
        return super().array(a, workload).contiguous(memory_format=layouts[workload.rank])


class OnnxRuntime(Library):
    """A model of one node, the weights its constants; the session is made for the shape."""

    directions = ("forward", "adjoint")

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import onnx
        import onnxruntime

        self.onnx, self.runtime, self.version = onnx, onnxruntime, onnxruntime.__version__
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3  # errors

    def supports(self, workload: Workload) -> bool:
        return workload.dtype == "float32"

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        make, number, rank = self.onnx.helper, self.onnx.TensorProto.FLOAT, workload.rank
        forward = direction == "forward"
        source, target = (x, workload.y) if forward else (y, workload.x)
        node = make.make_node(
            "ConvTranspose" if forward else "Conv",
            ["source", "w"],
            ["target"],
            strides=[workload.stride] * rank,
            pads=[workload.padding] * (2 * rank),
            dilations=[workload.dilation] * rank,
            group=workload.groups,
            **({"output_padding": [workload.output_padding] * rank} if forward else {}),
        )
        inputs = [make.make_tensor_value_info("source", number, source.shape)]
        outputs = [make.make_tensor_value_info("target", number, target)]
        graph = make.make_graph([node], "cell", inputs, outputs, [self.onnx.numpy_helper.from_array(w, "w")])
        # Versions that every ONNX Runtime of the last years reads, whatever this onnx would write.
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8)
        session = self.runtime.InferenceSession(model.SerializeToString(), self.options, ["CPUExecutionProvider"])
        return lambda: session.run(None, {"source": source})[0]


class OpenVino(Library):
    """The same with OpenVINO, which writes every result into the same tensor."""

    directions = ("forward", "adjoint")

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import openvino
        from openvino import opset8

        self.openvino, self.operations, self.core = openvino, opset8, openvino.Core()
        self.version = openvino.__version__.partition("-")[0]
        self.options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": str(threads),
        }

    def supports(self, workload: Workload) -> bool:
        return workload.dtype == "float32" and workload.rank <= 3

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        def each(value: int) -> list[int]:
            return [value] * workload.rank

        source, kind = (x, "convolution_backprop_data") if direction == "forward" else (y, "convolution")
        if workload.groups > 1:
            w, kind = w.reshape(workload.groups, -1, *w.shape[1:]), "group_" + kind
        parameter, weights = self.operations.parameter(source.shape, np.float32), self.operations.constant(w)
        strides, pads, dilations = each(workload.stride), each(workload.padding), each(workload.dilation)
        operation = getattr(self.operations, kind)
        if direction == "forward":
            more = each(workload.output_padding)
            node = operation(parameter, weights, strides, None, pads, pads, dilations, output_padding=more)
        else:
            node = operation(parameter, weights, strides, pads, pads, dilations)
        model = self.openvino.Model([node], [parameter])
        request = self.core.compile_model(model, "CPU", self.options).create_infer_request()
        tensor = self.openvino.Tensor(source, shared_memory=True)
        request.set_input_tensor(tensor)

        def call(keep: Any = (source, tensor)) -> Any:  # whose memory the request does not own
            request.infer()
            return request

        return call

    def numpy(self, result: Any) -> Array:
        return np.asarray(result.get_output_tensor(0).data)


class Jax(Library):
    """XLA's general convolution, and what JAX makes of it when it transposes it, compiled for the shape."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_platforms", "cpu")
        self.jax, self.version = jax, jax.__version__

    def array(self, a: Array, workload: Workload) -> Any:
        return self.jax.numpy.asarray(a).block_until_ready()

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        jax, groups, rank = self.jax, workload.groups, workload.rank
        reach = [workload.dilation * (k - 1) - workload.padding for k in workload.w[2:]]

        def arrange(w: Any) -> Any:
            """The kernel of the correlation, output channels first."""
            w = jax.numpy.flip(w.reshape(groups, -1, *w.shape[1:]), range(3, rank + 3)).swapaxes(1, 2)
            return w.reshape(-1, *w.shape[2:])

        def spread(x: Any, kernel: Any) -> Any:
            return jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(1,) * rank,
                padding=[(r, r + workload.output_padding) for r in reach],
                lhs_dilation=(workload.stride,) * rank,
                rhs_dilation=(workload.dilation,) * rank,
                feature_group_count=groups,
            )

        def adjoint(y: Any, w: Any) -> Any:
            return jax.linear_transpose(lambda x: spread(x, arrange(w)), x)(y)[0]

        def weights(x: Any, y: Any) -> Any:
            return jax.linear_transpose(lambda w: spread(x, arrange(w)), w)(y)[0]

        if direction == "forward":
            function, a, b = jax.jit(spread), x, arrange(w).block_until_ready()
        else:
            function, a, b = (jax.jit(adjoint), y, w) if direction == "adjoint" else (jax.jit(weights), x, y)
        return lambda: function(a, b).block_until_ready()


class NumpyTaps(Library):
    """For every tap a matrix product (a multiplication, if no channels are mixed) and a strided addition."""

    version = np.__version__

    def supports(self, workload: Workload) -> bool:
        return workload.groups == 1 or self.separate(workload)

    @staticmethod
    def separate(workload: Workload) -> bool:
        """Whether every channel is convolved by itself."""
        return workload.groups == workload.x[1] and workload.w[1] == 1

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        every: Any = (slice(None), slice(None))
        # The weights of each tap in one piece, as BLAS likes them: arranged once, like the constants of a model.
        matrices = np.ascontiguousarray(w.transpose(*range(2, w.ndim), 0, 1))
        taps = [((*every, *k), (*every, *i), (*every, *o), matrices[k]) for k, i, o in workload.taps()]

        def rows(a: Array) -> Array:
            return a.reshape(len(a), -1)

        if self.separate(workload):

            def product(weight: Array, a: Array) -> Array:
                return weight.reshape(-1, *(1,) * (a.ndim - 1)) * a

            def inner(a: Array, b: Array) -> Array:
                return (rows(a)[:, None] @ rows(b)[..., None])[..., 0]

        else:

            def product(weight: Array, a: Array) -> Array:
                return (weight @ rows(a)).reshape(-1, *a.shape[1:])

            def inner(a: Array, b: Array) -> Array:
                return rows(a) @ rows(b).T

        def forward() -> Array:
            result = np.zeros(workload.y, x.dtype)
            samples, outputs = x.swapaxes(0, 1), result.swapaxes(0, 1)  # a tap is one product for all images
            for _, i, o, weight in taps:
                outputs[o] += product(weight.T, samples[i])
            return result

        def adjoint() -> Array:
            result = np.zeros(workload.x, y.dtype)
            samples, outputs = result.swapaxes(0, 1), y.swapaxes(0, 1)
            for _, i, o, weight in taps:
                samples[i] += product(weight, outputs[o])
            return result

        def weights() -> Array:
            result = np.zeros(workload.w, x.dtype)
            samples, outputs = x.swapaxes(0, 1), y.swapaxes(0, 1)
            for k, i, o, _ in taps:
                result[k] = inner(samples[i], outputs[o])
            return result

        return {"forward": forward, "adjoint": adjoint, "weights": weights}[direction]


class NumpyShuffle(Library):
    """One product for all taps, then a transposition: where the images of the samples do not overlap."""

    version = np.__version__

    def supports(self, workload: Workload) -> bool:
        tiled = all(n == 1 or k == workload.stride for n, k in zip(workload.x[2:], workload.w[2:], strict=True))
        return tiled and not workload.keywords.keys() - {"stride"}

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        def woven(a: Shape, b: Shape) -> list[int]:
            return [size for pair in zip(a, b, strict=True) for size in pair]

        rank, n, k = workload.rank, workload.x[2:], workload.w[2:]
        tiles = (*workload.y[:2], *woven(n, k))  # N, C_out, n_0, k_0, n_1, k_1, ...
        apart = (1, *range(3, 2 * rank + 2, 2), 0, *range(2, 2 * rank + 2, 2))  # that as C_out, *K, N, *n
        together = np.argsort(apart)
        outputs, images = tuple(range(rank + 1)), tuple(range(rank + 1, 2 * rank + 2))  # C_out, *K and N, *n

        def forward() -> Array:
            return np.tensordot(w, x, (0, 1)).transpose(together).reshape(workload.y)

        def forward_one_channel() -> Array:  # the product in its final place
            return (x.reshape(woven(n, (1,) * rank)) * w.reshape(woven((1,) * rank, k))).reshape(workload.y)

        def adjoint() -> Array:
            sums = np.tensordot(w, y.reshape(tiles).transpose(apart), (range(1, rank + 2), outputs))
            return np.ascontiguousarray(sums.swapaxes(0, 1))

        def weights() -> Array:
            return np.tensordot(x, y.reshape(tiles).transpose(apart), ((0, *range(2, rank + 2)), images))

        if direction == "forward" and math.prod((*x.shape[:2], w.shape[1])) == 1:
            return forward_one_channel
        return {"forward": forward, "adjoint": adjoint, "weights": weights}[direction]


class ScipyFft(Library):
    """`fftconvolve` on the samples with zeros between them; the adjoint correlates and decimates."""

    function = "fftconvolve"

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        import scipy.fft
        import scipy.signal

        self.signal, self.version = scipy.signal, scipy.__version__
        scipy.fft.set_workers(threads).__enter__()  # for the life of this process

    def supports(self, workload: Workload) -> bool:
        # With fewer taps nobody would transform, and on large images it takes seconds.
        return workload.plain and workload.dilation == 1 and math.prod(workload.w) >= 9

    def array(self, a: Array, workload: Workload) -> Array:
        return a[0, 0]

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        convolve, stride, low = getattr(self.signal, self.function), workload.stride, workload.padding
        reverse = np.flip(w)

        def zeros_between() -> Array:
            if stride == 1:
                return x
            wide = np.zeros([(n - 1) * stride + 1 for n in x.shape], x.dtype)
            wide[(slice(None, None, stride),) * x.ndim] = x
            return wide

        def window(full: Array, skip: Shape, shape: Shape, step: int = 1) -> Array:
            """Part of a full convolution, without what padding takes off behind the first `skip` of each axis."""
            first = [size - low for size in skip]
            return full[tuple(slice(f, f + (n - 1) * step + 1, step) for f, n in zip(first, shape, strict=True))]

        # Correlation is convolution by the reversed kernel, which comes as many places later as that has, less one.
        later, widest = tuple(k - 1 for k in w.shape), tuple((n - 1) * stride for n in x.shape)
        return {
            "forward": lambda: convolve(zeros_between(), w)[tuple(slice(low, low + m) for m in y.shape)],
            "adjoint": lambda: window(convolve(y, reverse), later, x.shape, stride),
            "weights": lambda: window(convolve(y, np.flip(zeros_between())), widest, w.shape),
        }[direction]


class ScipyOverlapAdd(ScipyFft):
    """The same in blocks."""

    function = "oaconvolve"
    directions = ("forward", "adjoint")


class ScipyUpfirdn(ScipyFft):
    """Polyphase filtering along one axis."""

    directions = ("forward", "adjoint")

    def supports(self, workload: Workload) -> bool:
        return workload.plain and workload.dilation == 1 == workload.rank

    def call(self, workload: Workload, direction: str, x: Any, w: Any, y: Any) -> Call:
        upfirdn, stride, low = self.signal.upfirdn, workload.stride, workload.padding
        if direction == "forward":
            return lambda: upfirdn(w, x, up=stride)[low : low + y.size]
        # The first sample is so far into the full convolution; zeros ahead of the taps take it to a multiple of the
        # stride, where upfirdn looks.
        later = w.size - 1 - low
        ahead = np.zeros(-later % stride, w.dtype)
        reverse, first = np.concatenate([ahead, w[::-1]]), (later + ahead.size) // stride
        return lambda: upfirdn(reverse, y, down=stride)[first : first + x.size]


LIBRARIES: dict[str, type[Library]] = {
    "cytconv": Cytconv,
    "cytconv-operator": CytconvOperator,
    "cytconv-channels-last": CytconvChannelsLast,
    "torch": Torch,
    "torch-channels-last": TorchChannelsLast,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "jax": Jax,
    "numpy-taps": NumpyTaps,
    "numpy-shuffle": NumpyShuffle,
    "scipy-fft": ScipyFft,
    "scipy-oa": ScipyOverlapAdd,
    "scipy-upfirdn": ScipyUpfirdn,
}


def operands(workload: Workload, direction: str, conjugates: bool) -> tuple[Array, Array, Array]:
    """The arrays; the adjoint of a complex product needs the conjugate of the factor that stays."""
    x, w, y = workload.arrays()
    if workload.complex and not conjugates:
        x, w = (x.conj() if direction == "weights" else x), (w.conj() if direction == "adjoint" else w)
    return x, w, y


def reference(workload: Workload, direction: str) -> Array:
    """The result in double precision, tap by tap."""
    x, w, y = (a.astype(np.result_type(a, np.float64)) for a in operands(workload, direction, conjugates=False))
    return np.asarray(NumpyTaps(1).call(workload, direction, x, w, y)())
