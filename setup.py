"""The compiled modules of cytconv; everything else about the package is in pyproject.toml.

Environment variables:

CYTCONV_OPENMP
    ``auto`` (default) builds with OpenMP where the compiler has it and warns where it does not, ``1`` requires it,
    ``0`` builds serial kernels.
CYTCONV_ISAS
    Instruction sets to build kernels for, separated by commas: ``baseline,avx2,avx512`` unless it is set.  The baseline
    is always there, and those that the compiler does not know are left out.
CYTCONV_ANNOTATE
    ``1`` also writes Cython's annotated HTML, under ``build/``.
"""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, SetupError

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "freethreading_compatible": True,
    "auto_pickle": False,  # nobody pickles a plan; the methods for it take a fifth of the time to compile
}

# One source, several instruction sets: each stub includes the same .pxi files and is compiled with these flags.
ISA_FLAGS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": [
        *("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",  # compilers halve the vectors by default, for the sake of the clock rate
    ],
}
DTYPES = ["float32", "float64"]

# clang only: it gives up on the loops over the registers of a tile, which are then no registers, at 300 instructions.
UNROLL = ["-mllvm", "-unroll-threshold=2000"]

# No -ffast-math: it drops NaN and infinity, and turns subnormals off for the whole process that loads the module.
OPTIMIZE = {"msvc": ["/O2"], "unix": ["-O3", "-g0", "-fno-math-errno", "-ffp-contract=fast", "-fwrapv"]}

# (compile, link) flags of OpenMP, to be tried in order.
OPENMP = {
    "msvc": [(["/openmp"], [])],
    "unix": [(["-fopenmp"], ["-fopenmp"])],
    "darwin": [(["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])],  # GCC, then Apple's clang
}

OPENMP_PROBE = """\
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""

ISA_PROBE = """\
#ifndef __x86_64__
#error "not x86-64"
#endif
#include <immintrin.h>
typedef double vector __attribute__((vector_size(32)));
vector twice(vector a) { return a + a; }
"""

NO_OPENMP = """

************************************************************************
cytconv is being built WITHOUT OpenMP: every call will run on one core.
The compiler could not build and link a program that uses it.
  GCC                needs libgomp (part of GCC's own packages)
  clang on Linux     needs libomp (apt install libomp-dev)
  Apple's clang      needs libomp: brew install libomp, then
                     export CPPFLAGS=-I$(brew --prefix libomp)/include
                     export LDFLAGS=-L$(brew --prefix libomp)/lib
CYTCONV_OPENMP=0 asks for a serial build; CYTCONV_OPENMP=1 makes this an error.
************************************************************************
"""


class Build(build_ext):
    """Choose flags once the compiler is known, then turn .pyx into C and C into modules, several at a time."""

    cython_lock = threading.Lock()  # Cython's compiler has global state

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = True
        self.annotate = os.environ.get("CYTCONV_ANNOTATE", "0") == "1"

    def build_extensions(self):
        family = "msvc" if self.compiler.compiler_type == "msvc" else "unix"
        compile_openmp, link_openmp = self.openmp(family)
        optimize = OPTIMIZE[family] + (UNROLL if family == "unix" and self.is_clang() else [])
        isas = self.isas(family)
        chosen = []
        for ext in self.extensions:
            isa, _, dtype = ext.name.rpartition(".")[2].partition("_")
            if dtype and isa not in isas:
                Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)  # of a build before: it would be used
                continue
            if dtype or isa == "matrix":
                # Complex numbers as Cython's pairs of real ones: C's own product looks for infinities first.
                ext.define_macros = [("CYTHON_CCOMPLEX", "0")]
                ext.extra_compile_args = [*optimize, *ISA_FLAGS.get(isa, []), *compile_openmp]
                ext.extra_link_args = link_openmp
            chosen.append(ext)
        self.extensions = chosen
        self.remember_flags()
        super().build_extensions()

    def build_extension(self, ext):
        from Cython.Build import cythonize

        with self.cython_lock:
            (compiled,) = cythonize(
                ext,
                build_dir=self.build_temp,  # no .c in the source tree
                compiler_directives=DIRECTIVES,
                annotate=self.annotate,
                force=self.force or self.annotate or self.changed,
                quiet=True,
            )
        ext.sources = compiled.sources
        super().build_extension(ext)

    def remember_flags(self):
        """Make the modules depend on their flags too, so that another CYTCONV_OPENMP rebuilds them."""
        stamp = Path(self.build_temp, "flags.txt")
        flags = f"{DIRECTIVES}\n"
        flags += "".join(f"{ext.name} {ext.extra_compile_args} {ext.extra_link_args}\n" for ext in self.extensions)
        self.changed = not stamp.exists() or stamp.read_text() != flags
        if self.changed:
            stamp.parent.mkdir(parents=True, exist_ok=True)
            stamp.write_text(flags)
        for ext in self.extensions:
            ext.depends = [*ext.depends, str(stamp)]

    # ---- what the compiler can do --------------------------------------------------------------------

    def openmp(self, family):
        """The compile and link flags of OpenMP, both empty for a serial build."""
        wanted = os.environ.get("CYTCONV_OPENMP", "auto")
        if wanted not in ("0", "1", "auto"):
            raise SetupError(f"CYTCONV_OPENMP={wanted!r} must be 0, 1 or auto")
        if wanted == "0":
            return [], []
        for compile_flags, link_flags in OPENMP.get(sys.platform, OPENMP[family]):
            if self.compiles(OPENMP_PROBE, compile_flags, link_flags):
                return compile_flags, link_flags
        if wanted == "1":
            raise SetupError("CYTCONV_OPENMP=1, but the compiler cannot build and link a program that uses OpenMP")
        print(NO_OPENMP, file=sys.stderr)
        return [], []

    def isas(self, family):
        """The instruction sets to build for: the baseline, and those wanted that the compiler can target."""
        wanted = os.environ.get("CYTCONV_ISAS") or ",".join(ISA_FLAGS)
        names = [name.strip() for name in wanted.split(",") if name.strip()]
        if not set(names) <= set(ISA_FLAGS):
            raise SetupError(f"CYTCONV_ISAS={wanted!r} must be some of {', '.join(ISA_FLAGS)}, separated by commas")
        return [isa for isa, flags in ISA_FLAGS.items() if not flags or (isa in names and self.supports(isa, family))]

    def is_clang(self):
        """By what the compiler says of itself: its name may be another."""
        command = [*self.compiler.compiler, "--version"]
        return "clang" in subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def supports(self, isa, family):
        """Whether the compiler can target `isa`; the CPU is asked at import, by `cytconv.kernels.cpu`."""
        return family != "msvc" and self.compiles(ISA_PROBE, ISA_FLAGS[isa])

    def compiles(self, source, flags, link_flags=None):
        """Whether `source` compiles, and links if `link_flags` are given.  It is not run: cross builds could not."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile([str(path)], output_dir=folder, extra_postargs=flags)
                if link_flags is not None:
                    self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=link_flags)
            except (CompileError, LinkError):
                return False
        return True


def extensions():
    depends = ["setup.py", *sorted(str(path) for path in Path("cytconv/kernels").glob("*.pxi"))]
    names = ["cpu", "crew", "recall", "tables", "matrix", *(f"{isa}_{dtype}" for isa in ISA_FLAGS for dtype in DTYPES)]
    return [Extension(f"cytconv.kernels.{name}", [f"cytconv/kernels/{name}.pyx"], depends=depends) for name in names]


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_ext": Build})
