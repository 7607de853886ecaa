# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, initializedcheck=False, freethreading_compatible=False
"""The compiled half of gru_engine: a thin layer between Python objects and src_c/gru_engine.h."""

import json
import os
import struct
import zlib
from collections.abc import Mapping

import numpy as np

from gru_engine import _inputs, generation
from gru_engine.errors import FormatError

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.errno cimport errno
from libc.stdint cimport int32_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcpy

cnp.import_array()


cdef extern from "gru_engine.h" nogil:
    ctypedef struct gru_model:
        pass

    ctypedef struct gru_team:
        pass

    ctypedef enum gru_result:
        GRU_OK, GRU_ERROR_ARGUMENT, GRU_ERROR_MEMORY, GRU_ERROR_IO, GRU_ERROR_FORMAT, GRU_ERROR_UNSUPPORTED
        GRU_ERROR_TOKEN, GRU_ERROR_NOT_CAUSAL, GRU_ERROR_LENGTH, GRU_ERROR_SCORES, GRU_ERROR_CONTEXT

    ctypedef struct gru_open_options:
        size_t struct_nbytes
        int copy
        int skip_verify

    ctypedef struct gru_info:
        size_t input_width, n_tokens, vocabulary, n_inputs, output_width, n_outputs, state_width, state_nbytes, n_nodes
        size_t file_nbytes, context_width, n_contexts
        size_t least_steps
        int causal, per_sequence, other_steps
        uint8_t digest[32]

    ctypedef struct gru_run_args:
        size_t struct_nbytes, n_streams, n_steps
        const float *vectors
        const int32_t *tokens
        float **states
        float *outputs
        const size_t *lengths
        const uint8_t *reset
        int carry_padding
        gru_team *team

    ctypedef enum gru_scores:
        GRU_SCORES_UNKNOWN

    ctypedef struct gru_generate_args:
        size_t struct_nbytes, n_first, n_tokens, output, top_k, n_stop
        const int32_t *first
        int32_t *tokens
        const int32_t *stop
        gru_scores scores
        double temperature, top_p
        uint64_t seed, offset
        gru_team *team

    enum:
        GRU_MESSAGE_NBYTES

    const char *gru_result_string(gru_result)
    const char *gru_version()
    gru_result gru_open(const char *, const gru_open_options *, gru_model **, char *)
    gru_result gru_open_memory(const void *, size_t, const gru_open_options *, gru_model **, char *)
    void gru_close(gru_model *)
    void gru_get_info(const gru_model *, gru_info *)
    gru_result gru_get_input(const gru_model *, size_t, const char **, size_t *, size_t *, size_t *)
    gru_result gru_get_context(const gru_model *, size_t, const char **, size_t *, size_t *)
    gru_result gru_get_output(const gru_model *, size_t, const char **, size_t *, size_t *)
    size_t gru_output_steps(const gru_model *, size_t)
    void gru_get_file(const gru_model *, const void **, size_t *)
    void gru_state_init(const gru_model *, float *)
    void gru_state_get(const gru_model *, const float *, float *)
    void gru_state_set(const gru_model *, float *, const float *)
    gru_result gru_set_context(const gru_model *, float *, const float *, void *)
    gru_result gru_state_context(const gru_model *, const float *, float *)
    gru_result gru_copy_context(const gru_model *, const float *, float *)
    size_t gru_step_workspace_nbytes(const gru_model *)
    gru_result gru_step(const gru_model *, float *, const float *, const int32_t *, float *, void *)
    gru_result gru_prepare(const gru_model *, float *, void *)
    size_t gru_run_workspace_nbytes(const gru_model *, size_t, size_t, int)
    gru_result gru_run(const gru_model *, const gru_run_args *, void *, size_t)
    gru_scores gru_get_scores(const gru_model *, size_t)
    size_t gru_generate_workspace_nbytes(const gru_model *, int)
    gru_result gru_generate(const gru_model *, float *, const gru_generate_args *, size_t *, void *, size_t)
    gru_result gru_team_create(int, gru_team **)
    void gru_team_free(gru_team *)
    const char *gru_isa_built(size_t)
    int gru_isa_usable(const char *)
    const char *gru_isa_used()
    gru_result gru_isa_set(const char *)
    int gru_has_threads()


__version__ = gru_version().decode()

# Work below this many bytes of weights to be read takes less than some ten microseconds: there the GIL is kept,
# because giving it up and taking it back costs 50 ns at best and a time slice of another thread at worst.
cdef size_t KEEP_GIL_BELOW = 512 * 1024

# Weights read between two looks at signals while tokens are generated: some milliseconds.
cdef size_t SLICE_NBYTES = 64 * 1024 * 1024

cdef bytes STATE_MAGIC = b"GRUSTATE"

# Where the section table says where METADATA is (docs/FORMAT.md 1).
METADATA_ENTRY = 128 + 32 * 6 + 8

NOT_CAUSAL = (
    "the network needs later steps, as a reverse layer or a mean over the sequence does: it cannot be stepped, only run over "
    "whole sequences (Model.run)"
)
NO_CONTEXT = "no context has been set, and the network has the contexts {}: set_context() comes before the first step"


cdef too_short(Model model, tuple shape):
    """What is wrong with an input of this shape."""
    if model.info.least_steps == 1:
        return ValueError(f"x has no steps, its shape is {shape}, and the network makes values per sequence of them")
    return ValueError(
        f"x has too few steps, its shape is {shape}: the network makes values per sequence of at least "
        f"{model.info.least_steps} steps"
    )


# ---------------------------------------------------------------------------------------------------- instruction sets


def cpu_info():
    """Return which kernels this build has, which this machine can run, and which are in use.

    Returns
    -------
    dict
        ``built`` and ``usable``: names of instruction sets, worst first; ``used``: the one in use; ``threads``:
        whether the build can use several threads; ``version``: of the C core.
    """
    built = []
    cdef size_t i = 0
    while gru_isa_built(i) is not NULL:
        built.append(gru_isa_built(i).decode())
        i += 1
    return {
        "built": built,
        "usable": [name for name in built if gru_isa_usable(name.encode())],
        "used": gru_isa_used().decode() if gru_isa_used() is not NULL else None,
        "threads": bool(gru_has_threads()),
        "version": __version__,
    }


def set_isa(name):
    """Use the kernels of this instruction set from the next call on, in all threads. Results are the same bits.

    Parameters
    ----------
    name : str or None
        One of ``cpu_info()["usable"]``; None for the best.

    Raises
    ------
    ValueError
        If there are no such kernels or this machine cannot run them.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string or None, got {name!r}")
    cdef bytes encoded = b"" if name is None else name.encode()
    if gru_isa_set(NULL if name is None else PyBytes_AS_STRING(encoded)) != GRU_OK:
        info = cpu_info()
        known = "built but not usable on this machine" if name in info["built"] else "unknown"
        raise ValueError(f"name is {name!r}, which is {known}; usable are {', '.join(map(repr, info['usable']))}")


if gru_isa_used() is NULL:
    _wanted = os.environ.get("GRU_ENGINE_ISA")
    raise ImportError(
        f"the environment variable GRU_ENGINE_ISA is {_wanted!r}; usable on this machine are "
        + ", ".join(map(repr, cpu_info()["usable"]))
    )


# ---------------------------------------------------------------------------------------------------- memory


cdef void *allocate(size_t nbytes) except NULL:
    """Memory aligned to 64 bytes, to be given to `release`: the start of the allocation stands just before it."""
    cdef char *start = <char *>PyMem_RawMalloc(nbytes + 64 + sizeof(void *))
    if start is NULL:
        raise MemoryError(f"cannot allocate {nbytes} bytes")
    cdef char *at = start + sizeof(void *)
    at += (64 - <uintptr_t>at % 64) % 64
    (<void **>at)[-1] = start
    return at


cdef void release(void *memory) noexcept:
    if memory is not NULL:
        PyMem_RawFree((<void **>memory)[-1])


cdef inline float *floats_of(object array) noexcept:
    """The data of an ndarray of float32."""
    return <float *>cnp.PyArray_DATA(<cnp.ndarray>array)


cdef inline const int32_t *tokens_of(object array) noexcept:
    """The data of an ndarray of int32."""
    return <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>array)


# ---------------------------------------------------------------------------------------------------- classes

# One module in five files: what they share is above and below, what users see is in them.
include "_model.pxi"
include "_state.pxi"
include "_stream.pxi"
include "_pool.pxi"


# ---------------------------------------------------------------------------------------------------- calls


@cython.final
cdef class _Team:
    """Threads that a call borrows."""

    cdef gru_team *team

    def __cinit__(self, int n_threads):
        check(gru_team_create(n_threads, &self.team))

    def __dealloc__(self):
        gru_team_free(self.team)


# Teams that no call is using, by their size: threads are expensive to start, and a call may need them again soon.
# They sleep meanwhile.
cdef dict idle_teams = {}


cdef _Team borrow_team(int n_threads):
    """A team of this size; None for one thread, or where there are no threads."""
    if n_threads == 1 or not gru_has_threads():
        return None
    idle = idle_teams.setdefault(n_threads, [])
    return idle.pop() if idle else _Team(n_threads)


cdef give_back(int n_threads, _Team team):
    if team is not None:
        idle_teams[n_threads].append(team)


cdef int as_threads(threads) except -1:
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)):
        raise TypeError(f"threads must be an integer, got {threads!r}")
    if not 1 <= threads <= 1024:
        raise ValueError(f"threads must be from 1 to 1024, got {threads}")
    return threads


cdef int check(gru_result result, Model model=None) except -1:
    if result == GRU_ERROR_CONTEXT and model is not None:
        raise ValueError(NO_CONTEXT.format(_inputs.listed(model.contexts)))
    if result != GRU_OK:
        # The arguments were checked before, so this is a defect of this module rather than of its caller.
        raise RuntimeError(f"gru_engine: {gru_result_string(result).decode()}")
    return 0


cdef int run(Model model, gru_run_args *args, int n_threads, void *workspace=NULL, size_t nbytes=0) except -1:
    """gru_run with a team and, unless one is given, a workspace that live as long as the call.

    The GIL is released if it takes long.
    """
    cdef void *own = NULL
    cdef gru_result result
    if is_short(model, args.n_streams * args.n_steps):
        n_threads = 1
    if workspace is NULL:
        nbytes = gru_run_workspace_nbytes(model.model, args.n_streams, args.n_steps, n_threads)
        workspace = own = allocate(nbytes)
    cdef _Team team = None
    try:
        team = borrow_team(n_threads)
        args.team = team.team if team is not None else NULL
        if is_short(model, args.n_streams * args.n_steps):
            result = gru_run(model.model, args, workspace, nbytes)
        else:
            with nogil:
                result = gru_run(model.model, args, workspace, nbytes)
    finally:
        release(own)
        give_back(n_threads, team)
    return check(result, model)


cdef inline bint is_short(Model model, size_t n_rows) noexcept:
    return model.info.file_nbytes < KEEP_GIL_BELOW and n_rows * model.info.file_nbytes < KEEP_GIL_BELOW
