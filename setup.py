# SPDX-License-Identifier: Apache-2.0
"""Builds the extension module gru_engine._core; everything else about the package is in pyproject.toml.

Switches, all of them environment variables:
    GRU_ENGINE_SANITIZE=list  the compiler's sanitizers, for instance address,undefined
    GRU_ENGINE_DEBUG=1        no optimisation, debug information, assertions
    GRU_ENGINE_COVERAGE=1     line tracing in Cython, gcov in C; never for a release
    GRU_ENGINE_LIBRARY=file   the C library, built already with the same flags, instead of its sources
"""

import os
from concurrent.futures import ThreadPoolExecutor
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One set of flags for every file: instruction sets are switched on inside the files, so that nothing else is compiled
# for them. No -ffast-math, no contraction, no -march: order and rounding of every operation are part of the specification.
# GCC 12 for AArch64 swaps copies between arrays of float and int32_t (memcpy, legal C) unless aliasing is not strict.
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-strict-aliasing", "-fvisibility=hidden", "-Wall", "-g0"]


class BuildExt(build_ext):
    """Builds the one extension module with the compiler's and the environment's possibilities."""

    def build_extension(self, ext):
        import numpy

        if self.compiler.compiler_type != "unix":
            raise SystemExit("gru_engine needs gcc or clang")
        flags, link, switch = list(FLAGS), ["-pthread"], os.environ.get
        if names := switch("GRU_ENGINE_SANITIZE"):
            sanitize = [f"-fsanitize={names}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1"]
            # With a check before each access in line the kernels, all inlined, take gcc ten minutes and gigabytes.
            calls = "--param=asan-instrumentation-with-call-threshold=0"
            flags = [*flags, *sanitize, calls, "-fno-sanitize=pointer-overflow,null,object-size"]
            link = link + sanitize
        if switch("GRU_ENGINE_DEBUG") == "1":
            flags += ["-O0", "-g", "-UNDEBUG"]
        if switch("GRU_ENGINE_COVERAGE") == "1":
            flags, link = [*flags, "-O0", "--coverage"], [*link, "--coverage"]
            ext.define_macros.append(("CYTHON_TRACE_NOGIL", "1"))
            self.cython_directives = {"linetrace": True}
        self.cython_c_in_temp = True
        ext.include_dirs.append(numpy.get_include())
        ext.define_macros.append(("GRU_ENGINE_VERSION", f'"{self.distribution.get_version()}"'))
        ext.extra_compile_args, ext.extra_link_args = flags, link
        one_by_one = self.compiler.compile

        def side_by_side(sources, **options):
            with ThreadPoolExecutor() as pool:
                return list(pool.map(lambda source: one_by_one([source], **options)[0], sources))

        self.compiler.compile = side_by_side
        super().build_extension(ext)


library = os.environ.get("GRU_ENGINE_LIBRARY")
core = Extension(
    "gru_engine._core",
    sources=["gru_engine/_core.pyx", *([] if library else sorted(glob("src_c/*.c")))],
    extra_objects=[library] if library else [],
    include_dirs=["src_c"],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_23_API_VERSION")],
    depends=[*sorted(glob("gru_engine/*.pxi") + glob("src_c/*.h")), "pyproject.toml", "setup.py"],
    libraries=["m"],
)
setup(ext_modules=[core], cmdclass={"build_ext": BuildExt})
