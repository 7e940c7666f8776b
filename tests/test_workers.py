"""Threads: the same bits for every number of workers, calls from many threads at once, and children that fork."""

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from reference import DTYPES, assert_exact, uniform

from cytconv import _runtime, conv, conv_transpose, conv_transpose_adjoint, conv_transpose_weight_adjoint
from cytconv._runtime import available_cpus, config, resolve_workers
from cytconv.kernels.crew import Crew

OPENMP = config()["OpenMP"].startswith("yes")

SHAPES = [
    # x, w, keywords
    ((5,), (3,), {}),
    ((1000,), (7,), {"stride": 2}),
    ((64, 65), (3, 3), {}),
    ((7, 33, 20), (2, 2), {"stride": 2, "axes": (2, 0)}),
    ((12, 5, 9, 5), (2, 3, 2), {"stride": (1, 2, 2), "padding": ((1, 0), 1, 0)}),
    ((1, 70, 9, 11), (70, 30, 3, 3), {"channels": "first", "stride": 2, "padding": 1}),
    ((3, 8, 31, 17), (8, 1, 5, 5), {"channels": "first", "stride": 3}),
    ((2, 3, 6, 40), (40, 1, 3, 2), {"channels": "last", "groups": 40}),
    ((300, 4, 8), (4, 6, 4), {"channels": "first", "groups": 2, "dilation": 2}),
    ((1, 260, 2, 2), (260, 60, 2, 2), {"channels": "first", "stride": 2}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("x_shape", "w_shape", "kwargs", "method"),
    [(*shape, method) for method in ("direct", "fft") for shape in SHAPES]
    + [(*shape, "sparse") for shape in SHAPES[:4]],
    ids=str,
)
def test_the_same_bits_for_every_number_of_workers(rng, x_shape, w_shape, kwargs, method, dtype, monkeypatch):
    monkeypatch.setattr(_runtime, "WORK_PER_THREAD", 1)  # however little there is to do
    x, w = uniform(rng, x_shape, dtype), uniform(rng, w_shape, dtype)
    taps = w_shape[2:] if "channels" in kwargs else w_shape
    y = conv_transpose(x, w, **kwargs)
    for function, a, b, extra in (
        (conv_transpose, x, w, {}),
        (conv, y, w, {}),
        (conv_transpose_adjoint, y, w, {}),
        (conv_transpose_weight_adjoint, x, y, {"kernel_shape": taps}),
    ):
        one, *more = (
            function(a, b, method=method, workers=n, **extra, **kwargs).tobytes() for n in (1, 2, 3, 64, None)
        )
        assert any(one)
        assert all(other == one for other in more)


# ---- how many -----------------------------------------------------------------------------------------


def test_how_many_workers():
    cpus = available_cpus()
    assert cpus >= 1
    assert resolve_workers(1) == 1
    assert resolve_workers(cpus + 5) == cpus + 5
    assert resolve_workers(-1) == cpus
    assert resolve_workers(-cpus) == 1
    assert resolve_workers(np.int8(3)) == 3
    assert resolve_workers(None) >= 1


@pytest.mark.parametrize("function", [conv_transpose, conv, conv_transpose_adjoint, conv_transpose_weight_adjoint])
def test_wrong_numbers_of_workers(function):
    kwargs = {"kernel_shape": 1} if function is conv_transpose_weight_adjoint else {}
    a, b = np.ones(3), np.ones(2)
    with pytest.raises(ValueError, match="workers=0 must not be 0"):
        function(a, b, workers=0, **kwargs)
    low = -available_cpus() - 1
    with pytest.raises(ValueError, match=f"workers={low} must not be .*below {low + 1}"):
        function(a, b, workers=low, **kwargs)
    for wrong in (1.0, "2", [1]):
        with pytest.raises(TypeError, match="workers=.* must be an integer or None"):
            function(a, b, workers=wrong, **kwargs)


def run(script, **environment):
    """What `script` prints, in an interpreter of its own that gets a minute."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COUNT_THREADS = """
    import os
    import numpy as np
    from cytconv import conv_transpose

    def threads():
        return len(os.listdir("/proc/self/task"))

    x, w = np.ones((4, 64, 64, 64), np.float32), np.ones((64, 32, 3, 3), np.float32)
    before = threads()
    conv_transpose(x, w, channels="first", workers={workers})
    print(threads() - before)
"""

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")


@needs_proc
@pytest.mark.parametrize(("asked", "started"), [("1", 0), ("2", 1), ("3", 2)])
def test_workers_none_does_what_openmp_would(asked, started):
    assert int(run(COUNT_THREADS.format(workers=None), OMP_NUM_THREADS=asked)) == (started if OPENMP else 0)


@needs_proc
@pytest.mark.parametrize(("workers", "started"), [(1, 0), (2, 1), (3, 2)])
def test_workers_set_the_number_of_threads(workers, started):
    assert int(run(COUNT_THREADS.format(workers=workers), OMP_NUM_THREADS="2")) == (started if OPENMP else 0)


def test_workers_none_heeds_threadpoolctl():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    for limit in (1, 3):
        with threadpoolctl.threadpool_limits(limit, user_api="openmp"):
            assert resolve_workers(None) == (limit if OPENMP else 1)


@needs_proc
def test_small_calls_start_no_threads():
    script = COUNT_THREADS.replace("(4, 64, 64, 64)", "(64, 1, 2, 2)").replace("(64, 32, 3, 3)", "(1, 1, 2, 2)")
    assert int(run(script.format(workers=8))) == 0


# ---- at once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_calls_from_many_threads_at_once(rng, workers):
    """Of one geometry and of many: nothing is shared but what is never written."""
    jobs = []
    for n in range(24):
        x = uniform(rng, (2, 6, 9, 20 + n % 3), np.float32)
        w = uniform(rng, (6, 5, 3, 3), np.float32)
        jobs.append((x, w, {"channels": "first", "stride": 1 + n % 2, "workers": workers}))

    def work(job):
        x, w, kwargs = job
        y = conv_transpose(x, w, **kwargs)
        return (
            y,
            conv_transpose_adjoint(y, w, **kwargs),
            conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 3), **kwargs),
        )

    expected = [work(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(work, jobs), expected, strict=True):
                for a, b in zip(got, want, strict=True):
                    assert_exact(a, b, np.float32)


# ---- Python side by side --------------------------------------------------------------------------------


@pytest.fixture
def crew():
    with ThreadPoolExecutor(2) as pool:
        yield Crew(pool)


def test_a_crew_works_side_by_side(crew):
    together = threading.Barrier(3)

    def wait(i):
        together.wait(timeout=30)  # for the other two
        return i, threading.get_ident()

    for _ in range(5):
        results = crew.map(wait, range(3), 3)
        assert [i for i, _ in results] == [0, 1, 2]
        assert len({ident for _, ident in results}) == 3


def test_results_of_a_crew_are_in_order(crew):
    for threads in (1, 2, 3, 7):
        assert crew.map(lambda i: -i, range(100), threads) == [-i for i in range(100)]
        assert crew.map(len, [], threads) == []


def test_nobody_waits_for_a_helper_that_is_late():
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait, 30)  # its thread has other work
        assert Crew(pool).map(lambda i: i, range(5), 2) == [0, 1, 2, 3, 4]
        assert not gate.is_set()
        gate.set()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_of_any_thread_is_raised(crew, threads):
    def fail(i):
        if i in (1, 3):
            raise ValueError(f"item {i}")

    for _ in range(20):
        with pytest.raises(ValueError, match="item [13]"):
            crew.map(fail, range(8), threads)
    assert crew.map(lambda i: i, range(3), threads) == [0, 1, 2]


@pytest.mark.parametrize("asked", [False, True])
def test_an_interrupted_crew_recovers(asked):
    """Ctrl-C in the middle of asking for help: no more work is done for that call, and the next one has help."""

    class Pool(ThreadPoolExecutor):
        interrupts = True

        def submit(self, *work):
            interrupts, self.interrupts = self.interrupts, False
            future = super().submit(*work) if asked or not interrupts else None
            if interrupts:
                raise KeyboardInterrupt
            return future

    with Pool(1) as pool:
        crew, done = Crew(pool), []
        with pytest.raises(KeyboardInterrupt):
            crew.map(done.append, range(1000), 2)
        so_far = len(done)
        together = threading.Barrier(2)
        assert crew.map(lambda _: together.wait(timeout=30) >= 0, range(2), 2) == [True, True]
        assert len(done) == so_far


def test_a_crew_of_many_callers(crew):
    """Helpers of one caller may help another; everyone gets results of their own."""
    with ThreadPoolExecutor(6) as callers:
        got = callers.map(lambda n: [crew.map(lambda i: i * n, range(9), 3) for _ in range(50)], range(12))
        for n, results in enumerate(got):
            assert results == [[i * n for i in range(9)]] * 50


def test_a_crew_without_threads():
    """When there can be no more threads, or the interpreter is about to end."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    assert Crew(pool).map(lambda i: i, range(5), 3) == [0, 1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("parent", ["direct", "sparse", "few by sparse", "fft", "matrix"])
def test_a_forked_child_works(parent):
    """libgomp alone would hang in the child, whatever its parent has done."""
    script = f"""
        import os
        import numpy as np
        from cytconv import conv_transpose, conv_transpose_adjoint, conv_transpose_matrix, conv_transpose_weight_adjoint

        kwargs = {{"channels": "first", "workers": 2}}

        def work(method, n=40, batch=4):
            rng = np.random.default_rng(1)
            x, w = rng.uniform(size=(batch, 30, n, n)), rng.uniform(size=(30, 20, 3, 3))
            if method == "matrix":
                return conv_transpose_matrix(w, x.shape[1:], channels="first").data.tobytes()
            y = conv_transpose(x, w, method=method, **kwargs)
            adjoint = conv_transpose_adjoint(y, w, method=method, **kwargs)
            weights = conv_transpose_weight_adjoint(x, y, kernel_shape=(3, 3), method=method, **kwargs)
            return y.tobytes() + adjoint.tobytes() + weights.tobytes()

        work("sparse", 5, 5) if "{parent}" == "few by sparse" else work("{parent}")
        methods = ["{parent}"] if "{parent}" in ("direct", "sparse", "fft", "matrix") else []
        expected = [work(method) for method in methods]  # what the parent has done, and no more
        child = os.fork()
        if child == 0:
            for method in ("direct", "sparse", "fft", "matrix"):
                work(method)
            os._exit(0 if [work(method) for method in methods] == expected else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        work("direct")
    """
    assert run(script, OMP_NUM_THREADS="2").split() == ["0"]


@pytest.mark.parametrize("method", ["direct", "sparse", "fft"])
def test_far_too_many_workers(method):
    """They are threads to use at most."""
    rng = np.random.default_rng(2)
    x, w = rng.uniform(size=(3, 4, 200, 200)), rng.uniform(size=(4, 2, 15, 15))
    few, many = (conv_transpose(x, w, channels="first", method=method, workers=n) for n in (2, 2**40))
    np.testing.assert_array_equal(few, many)
