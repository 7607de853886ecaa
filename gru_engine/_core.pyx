# SPDX-License-Identifier: Apache-2.0
# cython: language_level=3, initializedcheck=False, freethreading_compatible=False
"""The compiled half of gru_engine: a thin layer between Python objects and src_c/gru_engine.h."""

import json
import os
import struct
import zlib

import numpy as np

from gru_engine import _inputs
from gru_engine.errors import FormatError

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from libc.errno cimport errno
from libc.stdint cimport int32_t, uint8_t, uintptr_t
from libc.string cimport memcpy

cnp.import_array()


cdef extern from "gru_engine.h" nogil:
    ctypedef struct gru_model:
        pass

    ctypedef struct gru_team:
        pass

    ctypedef enum gru_result:
        GRU_OK, GRU_ERROR_ARGUMENT, GRU_ERROR_MEMORY, GRU_ERROR_IO, GRU_ERROR_FORMAT, GRU_ERROR_UNSUPPORTED
        GRU_ERROR_TOKEN, GRU_ERROR_NOT_CAUSAL, GRU_ERROR_LENGTH

    ctypedef struct gru_open_options:
        size_t struct_nbytes
        int copy
        int skip_verify

    ctypedef struct gru_info:
        size_t input_width, vocabulary, output_width, n_outputs, state_width, state_nbytes, n_nodes, file_nbytes
        int causal, per_sequence
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

    enum:
        GRU_MESSAGE_NBYTES

    const char *gru_result_string(gru_result)
    const char *gru_version()
    gru_result gru_open(const char *, const gru_open_options *, gru_model **, char *)
    gru_result gru_open_memory(const void *, size_t, const gru_open_options *, gru_model **, char *)
    void gru_close(gru_model *)
    void gru_get_info(const gru_model *, gru_info *)
    gru_result gru_get_output(const gru_model *, size_t, const char **, size_t *, size_t *)
    void gru_get_file(const gru_model *, const void **, size_t *)
    void gru_state_init(const gru_model *, float *)
    void gru_state_get(const gru_model *, const float *, float *)
    void gru_state_set(const gru_model *, float *, const float *)
    size_t gru_step_workspace_nbytes(const gru_model *)
    gru_result gru_step(const gru_model *, float *, const float *, const int32_t *, float *, void *)
    gru_result gru_prepare(const gru_model *, float *, void *)
    size_t gru_run_workspace_nbytes(const gru_model *, size_t, size_t, int)
    gru_result gru_run(const gru_model *, const gru_run_args *, void *, size_t)
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

cdef bytes STATE_MAGIC = b"GRUSTATE"

# Where the section table says where METADATA is (docs/FORMAT.md 1).
METADATA_ENTRY = 128 + 32 * 6 + 8

NOT_CAUSAL = "the network has a reverse layer: it cannot be stepped, only run over whole sequences (Model.run)"
NO_LAST_STEP = "x has no steps, its shape is {}, and the network's outputs are of a sequence's last step"


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


# ---------------------------------------------------------------------------------------------------- models


def load(source, *, copy=False, verify=True):
    """Open a .gru file.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        The path of a file, or the bytes of one.
    copy : bool
        False maps the file: nothing is read until it is used, and all processes share one copy in memory. True reads
        it into private memory, so that the file may be changed or removed. Bytes are always copied.
    verify : bool
        True checks the checksums of all bytes (about 1 GB/s). False leaves the weights unchecked: loading takes
        microseconds whatever the size, and a damaged weight goes unnoticed; nothing outside the file is ever read.

    Returns
    -------
    Model

    Raises
    ------
    FormatError
        If it is not a .gru file or a damaged one. It is a ValueError.
    OSError
        If the file cannot be opened.
    """
    cdef Model model = Model.__new__(Model)
    model.open(source, copy, verify)
    return model


@cython.final
cdef class Model:
    """A trained network, opened by :func:`load`. Immutable; any number of threads may use one at the same time.

    Attributes
    ----------
    input_size : int or None
        Floats per step; None if the network reads tokens.
    vocab_size : int or None
        Number of tokens; None if it reads vectors.
    output_size : int
        Floats of an output vector.
    outputs : dict of str to slice
        The named parts of the output vector.
    causal : bool
        Whether it can be stepped. Networks with a reverse layer see whole sequences only.
    per_sequence : bool
        Whether there is one output per sequence, that of its last step, rather than one per step.
    state_size : int
        Floats of a stream's state.
    digest : str
        SHA-256, in hexadecimal, of everything that determines a result.
    path : str or None
        Absolute path of the file.
    nbytes : int
        Size of the file.
    """

    cdef gru_model *model
    cdef gru_info info
    cdef readonly dict outputs
    cdef readonly object path
    cdef bint copied, verified

    def __init__(self):
        raise TypeError("a Model comes from gru_engine.load")

    def __dealloc__(self):
        gru_close(self.model)

    cdef open(self, source, copy, verify):
        cdef char message[GRU_MESSAGE_NBYTES]
        cdef gru_open_options options
        cdef gru_result result
        cdef const unsigned char[::1] view
        cdef bytes name
        options.struct_nbytes = sizeof(options)
        options.copy = self.copied = bool(copy)
        options.skip_verify = not verify
        self.verified = bool(verify)
        if isinstance(source, (bytes, bytearray, memoryview)):
            view = source if len(source) else b" "
            options.copy = self.copied = True
            result = gru_open_memory(&view[0], len(source), &options, &self.model, message)
            where = f"{len(source)} bytes"
        else:
            try:
                where = os.fspath(source)
            except TypeError:
                raise TypeError(f"source must be a path or bytes of a .gru file, got {type(source).__name__}") from None
            self.path = os.path.abspath(os.fsdecode(where))
            name = os.fsencode(where)
            if b"\0" in name:
                raise ValueError(f"source is a path with a zero byte: {where!r}")
            result = gru_open(name, &options, &self.model, message)
        if result == GRU_ERROR_IO:
            raise OSError(errno, os.strerror(errno), where)
        if result == GRU_ERROR_MEMORY:
            raise MemoryError(f"{where}: {message.decode()}")
        if result == GRU_ERROR_ARGUMENT:
            raise RuntimeError(f"{where}: {message.decode()}")
        if result != GRU_OK:
            raise FormatError(f"{where}: {message.decode(errors='replace')}")
        gru_get_info(self.model, &self.info)
        self.outputs = {}
        cdef const char *output
        cdef size_t first, width, i
        for i in range(self.info.n_outputs):
            gru_get_output(self.model, i, &output, &first, &width)
            self.outputs[output.decode()] = slice(first, first + width)

    @property
    def input_size(self):
        return self.info.input_width or None

    @property
    def vocab_size(self):
        return self.info.vocabulary or None

    @property
    def output_size(self):
        return self.info.output_width

    @property
    def state_size(self):
        return self.info.state_width

    @property
    def causal(self):
        return bool(self.info.causal)

    @property
    def per_sequence(self):
        return bool(self.info.per_sequence)

    @property
    def nbytes(self):
        return self.info.file_nbytes

    @property
    def digest(self):
        return (<bytes>self.info.digest[:32]).hex()

    @property
    def metadata(self):
        """dict: what the file says about itself."""
        view = self._file()
        start, nbytes = struct.unpack_from("<QQ", view, METADATA_ENTRY)
        try:
            return json.loads(bytes(view[start : start + nbytes]))
        except ValueError as error:  # possible only if the file was opened with verify=False
            raise FormatError(f"section METADATA is damaged: {error}") from None

    def _file(self):
        """The file's bytes as a read-only memoryview that keeps the model alive."""
        return memoryview(_File(self))

    def __repr__(self):
        kind = f"tokens below {self.vocab_size}" if self.info.vocabulary else f"{self.input_size} floats"
        return (
            f"<gru_engine.Model {kind} -> {self.output_size} floats"
            f"{' per sequence' if self.info.per_sequence else ''}, state of {self.state_size}, "
            f"{self.info.n_nodes} operations, {self.nbytes} bytes, {self.digest[:12]}>"
        )

    def summary(self):
        """Return a table of the operations, then facts of the file, as a string of some lines."""
        from gru_engine.format import read, unpack

        table = unpack(read(self._file())).summary()
        return f"{table}\nfile: {self.path or 'from bytes'}, {self.nbytes} bytes, float32, digest {self.digest[:12]}"

    def __reduce__(self):
        if self.path is None or self.copied:
            return _load_bytes, (bytes(self._file()), self.verified)
        return _load_path, (self.path, self.digest, self.verified)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def stream(self, state=None, threads=1):
        """Begin a stream: this model with a state of its own.

        Parameters
        ----------
        state : array_like [state_size] or bytes, optional
            The state to begin with; the model's initial state if not given. Bytes come from ``Stream.state_bytes``.
        threads : int
            Most threads that a call may use.

        Returns
        -------
        Stream

        Raises
        ------
        ValueError
            If the network is not causal, or the state is of another size or another model's.
        """
        return Stream(self, state, threads)

    def pool(self, capacity, threads=1):
        """Make room for many streams of this model that are stepped together.

        Parameters
        ----------
        capacity : int
            Most streams that can be open at once.
        threads : int
            Most threads that a call may use.

        Returns
        -------
        Pool
        """
        return Pool(self, capacity, threads)

    def run(self, x, *, lengths=None, reset=None, state=None, return_state=False, threads=1, padding="zero"):
        """Run whole sequences.

        Each row of the result has the same bits as stepping that sequence alone.

        Parameters
        ----------
        x : array_like
            [T, input_size] or [B, T, input_size] real numbers, used as float32; [T] or [B, T] integers if the network
            reads tokens. A C-contiguous float32 (int32) array is not copied.
        lengths : array_like [B], optional
            Valid steps of each sequence; an integer for a single one. Steps after the end change nothing.
        reset : array_like [T] or [B, T], optional
            True where a new sequence begins: the state before that step is the model's initial one (for a reverse
            layer, which comes from the other side, before the step before it).
        state : array_like [state_size] or [B, state_size], or bytes, optional
            States to begin with. Reverse layers begin with theirs at the sequence's end.
        return_state : bool
            Whether to return the states after the last valid step as well.
        threads : int
            Most threads to use; sequences are shared out among them.
        padding : {"zero", "carry"}
            Outputs after a sequence's end: zeros, as ONNX and PyTorch's packed sequences have them, or the last valid
            output again, as under a Keras mask.

        Returns
        -------
        ndarray float32
            [T, output_size] or [B, T, output_size]; [output_size] or [B, output_size] if outputs are per sequence.
        ndarray float32
            The states, [state_size] or [B, state_size]; only with ``return_state``.

        Raises
        ------
        TypeError, ValueError
            If an argument has another kind, shape or range; nothing has been computed then.

        Notes
        -----
        The GIL is released, except for work of a few microseconds.
        """
        cdef bint is_tokens = self.info.vocabulary != 0
        if is_tokens:
            if lengths is not None:
                x = _without_padding(x, lengths)
            array = _inputs.tokens(x, "x", self.info.vocabulary, (1, 2))
        else:
            array = _inputs.vectors(x, "x", self.info.input_width, (2, 3))
        cdef bint batched = array.ndim == (2 if is_tokens else 3)
        cdef size_t n_streams = array.shape[0] if batched else 1
        cdef size_t n_steps = array.shape[1] if batched else array.shape[0]
        if self.info.per_sequence and n_steps == 0 and n_streams:
            raise ValueError(NO_LAST_STEP.format(array.shape))
        if lengths is not None:
            least = 1 if self.info.per_sequence else 0
            if not batched and np.ndim(lengths) == 0:
                lengths = [lengths]
            lengths = _inputs.lengths(lengths, n_streams, n_steps, least)
        if reset is not None:
            reset = _inputs.reset(reset, array.shape[:2] if batched else array.shape[:1])
        if padding not in ("zero", "carry"):
            raise ValueError(f"padding must be 'zero' or 'carry', got {padding!r}")
        cdef int n_threads = as_threads(threads)
        states = States(self, n_streams)
        if state is not None:
            (<States>states).set(state, batched)

        rows = array.shape[: batched + (not self.info.per_sequence)]
        y = np.empty((*rows, self.info.output_width), np.float32)
        cdef gru_run_args args
        args.struct_nbytes = sizeof(args)
        args.n_streams = n_streams
        args.n_steps = n_steps
        args.vectors = NULL if is_tokens else floats_of(array)
        args.tokens = <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>array) if is_tokens else NULL
        args.states = (<States>states).pointers
        args.outputs = floats_of(y)
        args.lengths = NULL if lengths is None else <const size_t *>cnp.PyArray_DATA(<cnp.ndarray>lengths)
        args.reset = NULL if reset is None else <const uint8_t *>cnp.PyArray_DATA(<cnp.ndarray>reset)
        args.carry_padding = padding == "carry"
        run(self, &args, n_threads)
        if return_state:
            return y, (<States>states).get(batched)
        return y


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


cdef int check(gru_result result) except -1:
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
    return check(result)


cdef inline bint is_short(Model model, size_t n_rows) noexcept:
    return model.info.file_nbytes < KEEP_GIL_BELOW and n_rows * model.info.file_nbytes < KEEP_GIL_BELOW


def _without_padding(x, lengths):
    """Tokens [T] or [B, T] with zeros after a sequence's end, where they may be anything."""
    x, lengths = np.asarray(x), np.asarray(lengths)
    integers = x.dtype.kind in "iu" and lengths.dtype.kind in "iu"
    if not integers or x.ndim not in (1, 2) or lengths.size != (1 if x.ndim == 1 else len(x)):
        return x  # refused later, by name
    return np.where(np.arange(x.shape[-1]) < lengths.reshape((*x.shape[:-1], 1)), x, 0)


def _load_path(path, digest, verify):
    model = load(path, verify=verify)
    if model.digest != digest:
        raise ValueError(f"{path} has changed since it was pickled: its digest is {model.digest}, expected {digest}")
    return model


def _load_bytes(data, verify):
    return load(data, verify=verify)


@cython.final
cdef class _File:
    """The bytes of a model's file as a buffer."""

    cdef Model model
    cdef Py_ssize_t shape[1]
    cdef Py_ssize_t strides[1]

    def __init__(self, Model model):
        self.model = model

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        cdef const void *data
        cdef size_t nbytes
        gru_get_file(self.model.model, &data, &nbytes)
        if flags & 1:  # PyBUF_WRITABLE
            raise BufferError("a model is read-only")
        self.shape[0] = nbytes
        self.strides[0] = 1
        buffer.buf = <void *>data
        buffer.obj = self
        buffer.len = nbytes
        buffer.itemsize = 1
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = b"B"
        buffer.shape = self.shape
        buffer.strides = self.strides
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


# ---------------------------------------------------------------------------------------------------- states


cdef bytes pack_state(Model model, const float *block):
    """A state as bytes: magic, the model's digest, the floats, a CRC-32 of all that."""
    values = np.empty(model.info.state_width, np.float32)
    gru_state_get(model.model, block, floats_of(values))
    data = STATE_MAGIC + bytes(model.info.digest[:32]) + values.astype("<f4").tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


cdef unpack_state(Model model, data):
    """The floats of a state's bytes; refused if they are damaged or another model's."""
    data = bytes(data)
    if len(data) < 44 or data[:8] != STATE_MAGIC:
        raise ValueError(f"state must be the bytes of a state, got {len(data)} bytes that are not")
    digest = bytes(model.info.digest[:32])
    if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError("state is damaged: its checksum does not match its bytes")
    if data[8:40] != digest:
        raise ValueError(f"state belongs to the model {data[8:40].hex()[:12]}, this one is {digest.hex()[:12]}")
    return np.frombuffer(data[40:-4], "<f4")


cdef as_state(Model model, value, n_streams):
    if isinstance(value, (bytes, bytearray, memoryview)):
        value = unpack_state(model, value)
    return _inputs.state(value, "state", model.info.state_width, n_streams)


@cython.final
cdef class States:
    """State blocks of n streams in one aligned array, all at their initial state."""

    cdef Model model
    cdef size_t n
    cdef float *blocks
    cdef float **pointers

    def __cinit__(self, Model model, size_t n):
        cdef size_t stride = model.info.state_nbytes, i
        self.model = model
        self.n = n
        if stride and n > (<size_t>1 << 62) // stride:
            raise MemoryError(f"cannot allocate {n} states of {stride} bytes")
        self.blocks = <float *>allocate(n * stride)
        self.pointers = <float **>allocate(n * sizeof(float *))
        for i in range(n):
            self.pointers[i] = <float *>(<char *>self.blocks + i * stride)
            gru_state_init(model.model, self.pointers[i])

    def __dealloc__(self):
        release(self.blocks)
        release(self.pointers)

    cdef set(self, value, bint batched):
        array = as_state(self.model, value, self.n if batched else None)
        cdef const float *values = floats_of(array)
        cdef size_t i
        for i in range(self.n):
            gru_state_set(self.model.model, self.pointers[i], values + i * self.model.info.state_width)

    cdef get(self, bint batched):
        array = np.empty((self.n, self.model.info.state_width), np.float32)
        cdef float *values = floats_of(array)
        cdef size_t i
        for i in range(self.n):
            gru_state_get(self.model.model, self.pointers[i], values + i * self.model.info.state_width)
        return array if batched else array[0]


# ---------------------------------------------------------------------------------------------------- what step() takes


cdef inline bint is_plain(object x, int typenum, int ndim) noexcept:
    """Whether x is just what the core reads: an ndarray of this type, aligned, C-contiguous, in native byte order."""
    return (
        cnp.PyArray_CheckExact(x)
        and cnp.PyArray_TYPE(<cnp.ndarray>x) == typenum
        and cnp.PyArray_NDIM(<cnp.ndarray>x) == ndim
        and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>x)
    )


cdef inline bint overlap(const float *a, size_t n_a, const float *b, size_t n_b) noexcept:
    return <uintptr_t>a < <uintptr_t>(b + n_b) and <uintptr_t>b < <uintptr_t>(a + n_a)


cdef int32_t as_token(object x, size_t vocab) except -1:
    cdef int overflow = 0
    cdef long value = -1
    if PyLong_CheckExact(x):
        value = PyLong_AsLongAndOverflow(x, &overflow)
        if overflow or value < 0 or <size_t>value >= vocab:
            raise ValueError(f"x must be a token from 0 to {vocab - 1}, got {x}")
        return <int32_t>value
    if isinstance(x, bool):
        raise TypeError(f"x must be an integer token, got {x!r}")
    return _inputs.tokens(x, "x", vocab, (0,)).item()


cdef check_out(object out, tuple shape):
    """out must be what results can be written into: nothing is converted, because the caller would not see it."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.dtype != np.float32:
        raise TypeError(f"out must have dtype float32, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out must have the shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")


# ---------------------------------------------------------------------------------------------------- streams


@cython.final
cdef class Stream:
    """One stream: a model and a state, made by :meth:`Model.stream`.

    A stream is for one thread at a time: a call while another one is going on raises RuntimeError. Different streams
    of a model run in parallel. Streams can be pickled, and copied with :meth:`copy`.
    """

    cdef readonly Model model
    cdef float *block
    cdef void *workspace
    cdef size_t n_in, n_out
    cdef int n_threads
    cdef bint busy, short_step

    def __cinit__(self, Model model not None, state=None, threads=1):
        if not model.info.causal:
            raise ValueError(NOT_CAUSAL)
        self.model = model
        self.n_in = model.info.input_width
        self.n_out = model.info.output_width
        self.n_threads = as_threads(threads)
        self.short_step = is_short(model, 1)
        self.block = <float *>allocate(model.info.state_nbytes)
        self.workspace = allocate(gru_step_workspace_nbytes(model.model))
        gru_state_init(model.model, self.block)
        if state is not None:
            self.state = state

    def __dealloc__(self):
        release(self.block)
        release(self.workspace)

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("this Stream is in use by another thread; give each thread one of its own (Stream.copy)")
        self.busy = True
        return 0

    def step(self, x, out=None):
        """Take one step.

        Parameters
        ----------
        x : array_like [input_size] or int
            The input, used as float32, or a token. A C-contiguous float32 array is not copied.
        out : ndarray float32 [output_size], optional
            Where to write the output. With a plain float32 input nothing is allocated then.

        Returns
        -------
        ndarray float32 [output_size]
            ``out``, or a new array.

        Raises
        ------
        TypeError, ValueError
            If x or out does not fit; the state has not changed then.
        RuntimeError
            If another thread is using the stream.

        Notes
        -----
        The GIL is kept if the model is small (a step of some ten microseconds or less), else released.
        """
        cdef int32_t token = 0
        cdef const float *vector = NULL
        cdef float *result
        cdef object y = out
        cdef cnp.npy_intp size = self.n_out
        if self.n_in == 0:
            token = as_token(x, self.model.info.vocabulary)
        else:
            if not (is_plain(x, cnp.NPY_FLOAT32, 1) and <size_t>cnp.PyArray_DIM(<cnp.ndarray>x, 0) == self.n_in):
                x = _inputs.vectors(x, "x", self.n_in, (1,))
            vector = floats_of(x)
        if out is None:
            y = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_FLOAT32)
        elif not (
            is_plain(out, cnp.NPY_FLOAT32, 1)
            and cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out)
            and cnp.PyArray_DIM(<cnp.ndarray>out, 0) == size
            and not overlap(vector, self.n_in, floats_of(out), self.n_out)
        ):
            check_out(out, (self.n_out,))
            y = cnp.PyArray_SimpleNew(1, &size, cnp.NPY_FLOAT32)
        result = floats_of(y)
        self.enter()
        cdef gru_result code = GRU_OK
        cdef const int32_t *tokens = NULL if self.n_in else &token
        if self.short_step:
            code = gru_step(self.model.model, self.block, vector, tokens, result, self.workspace)
        elif self.n_threads == 1:
            with nogil:
                code = gru_step(self.model.model, self.block, vector, tokens, result, self.workspace)
        else:
            self.run_steps(vector, tokens, 1, result)
        self.busy = False
        check(code)
        if out is not None and y is not out:
            out[...] = y
            return out
        return y

    def run(self, x):
        """Take many steps: a block of a longer sequence, continuing from the state.

        Parameters
        ----------
        x : array_like [T, input_size], or [T] tokens

        Returns
        -------
        ndarray float32 [T, output_size]
            The same bits as T steps; [output_size], that of the last step, if outputs are per sequence.

        Raises
        ------
        TypeError, ValueError
            If x does not fit; the state has not changed then.
        RuntimeError
            If another thread is using the stream.

        Notes
        -----
        The GIL is released, except for work of a few microseconds.
        """
        cdef Model model = self.model
        cdef bint is_tokens = self.n_in == 0
        if is_tokens:
            array = _inputs.tokens(x, "x", model.info.vocabulary, (1,))
        else:
            array = _inputs.vectors(x, "x", self.n_in, (2,))
        cdef size_t n_steps = array.shape[0]
        if model.info.per_sequence and n_steps == 0:
            raise ValueError(NO_LAST_STEP.format(array.shape))
        y = np.empty((*array.shape[: not model.info.per_sequence], self.n_out), np.float32)
        self.enter()
        self.run_steps(
            NULL if is_tokens else floats_of(array),
            <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>array) if is_tokens else NULL,
            n_steps,
            floats_of(y),
        )
        self.busy = False
        return y

    cdef int run_steps(self, const float *vectors, const int32_t *tokens, size_t n_steps, float *outputs) except -1:
        """gru_run for this stream, which has been entered; if it fails, the stream is left."""
        cdef gru_run_args args
        args.struct_nbytes = sizeof(args)
        args.n_streams = 1
        args.n_steps = n_steps
        args.vectors = vectors
        args.tokens = tokens
        args.states = &self.block
        args.outputs = outputs
        args.lengths = NULL
        args.reset = NULL
        args.carry_padding = 0
        try:
            return run(self.model, &args, self.n_threads)
        except BaseException:
            self.busy = False
            raise

    def prepare(self):
        """Compute the half of the next step that does not depend on its input, now, while the stream is idle.

        The next step then takes less time and gives the same bits. Doing it twice, or not at all, does no harm.

        Notes
        -----
        The GIL is kept if the model is small, else released.
        """
        cdef gru_result code
        self.enter()
        if self.short_step:
            code = gru_prepare(self.model.model, self.block, self.workspace)
        else:
            with nogil:
                code = gru_prepare(self.model.model, self.block, self.workspace)
        self.busy = False
        check(code)

    @property
    def state(self):
        """ndarray float32 [state_size]: a copy of the state. Assigning one, or ``state_bytes()``, sets it."""
        array = np.empty(self.model.info.state_width, np.float32)
        self.enter()
        gru_state_get(self.model.model, self.block, floats_of(array))
        self.busy = False
        return array

    @state.setter
    def state(self, value):
        array = as_state(self.model, value, None)
        self.enter()
        gru_state_set(self.model.model, self.block, floats_of(array))
        self.busy = False

    def state_bytes(self):
        """Return the state as bytes that carry the model's digest: another model refuses them."""
        self.enter()
        try:
            return pack_state(self.model, self.block)
        finally:
            self.busy = False

    def reset(self):
        """Go back to the model's initial state."""
        self.enter()
        gru_state_init(self.model.model, self.block)
        self.busy = False

    def copy(self):
        """Return a second stream that goes on from the same state, independently."""
        cdef Stream other = Stream(self.model, None, self.n_threads)
        self.enter()
        memcpy(other.block, self.block, self.model.info.state_nbytes)
        self.busy = False
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return Stream, (self.model, self.state, self.n_threads)

    def __repr__(self):
        return f"<gru_engine.Stream of {self.model!r}>"


# ---------------------------------------------------------------------------------------------------- pools


@cython.final
cdef class Pool:
    """Many streams of a model in one array, stepped in any subset; made by :meth:`Model.pool`.

    A stream of the pool is named by its slot, a number from 0 to capacity - 1. A pool is for one thread at a time: a
    call while another one is going on raises RuntimeError.
    """

    cdef readonly Model model
    cdef readonly Py_ssize_t capacity
    cdef States states
    cdef float **chosen
    cdef uint8_t *is_open
    cdef uint8_t *is_chosen
    cdef list free
    cdef void *workspace
    cdef size_t workspace_nbytes
    cdef int n_threads
    cdef bint busy

    def __cinit__(self, Model model not None, capacity, threads=1):
        if not model.info.causal:
            raise ValueError(NOT_CAUSAL)
        if isinstance(capacity, bool) or not isinstance(capacity, (int, np.integer)):
            raise TypeError(f"capacity must be an integer, got {capacity!r}")
        if not 1 <= capacity < 2**31:
            raise ValueError(f"capacity must be from 1 to {2**31 - 1}, got {capacity}")
        self.model = model
        self.capacity = capacity
        self.n_threads = as_threads(threads)
        self.states = States(model, capacity)
        self.chosen = <float **>allocate(capacity * sizeof(float *))
        self.is_open = <uint8_t *>allocate(capacity)
        self.is_chosen = <uint8_t *>allocate(capacity)
        self.workspace_nbytes = gru_run_workspace_nbytes(model.model, capacity, 1, self.n_threads)
        self.workspace = allocate(self.workspace_nbytes)
        cdef Py_ssize_t i
        for i in range(self.capacity):
            self.is_open[i] = self.is_chosen[i] = 0
        self.free = list(range(capacity - 1, -1, -1))

    def __dealloc__(self):
        release(self.chosen)
        release(self.is_open)
        release(self.is_chosen)
        release(self.workspace)

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("this Pool is in use by another thread")
        self.busy = True
        return 0

    cdef Py_ssize_t slot_of(self, slot) except -1:
        if isinstance(slot, bool) or not isinstance(slot, (int, np.integer)):
            raise TypeError(f"slot must be an integer, got {slot!r}")
        if not 0 <= slot < self.capacity or not self.is_open[<Py_ssize_t>slot]:
            raise ValueError(f"slot {slot} is not open")
        return slot

    def __len__(self):
        """Return the number of open slots."""
        return self.capacity - len(self.free)

    def open(self, state=None):
        """Open a stream.

        Parameters
        ----------
        state : array_like [state_size] or bytes, optional
            The state to begin with; the model's initial state if not given.

        Returns
        -------
        int
            Its slot.

        Raises
        ------
        RuntimeError
            If all slots are open.
        """
        array = None if state is None else as_state(self.model, state, None)
        if not self.free:  # after the conversion, which may run any code
            raise RuntimeError(f"all {self.capacity} slots of the pool are open")
        self.enter()
        cdef Py_ssize_t slot = self.free.pop()
        self.is_open[slot] = 1
        gru_state_init(self.model.model, self.states.pointers[slot])
        if array is not None:
            gru_state_set(self.model.model, self.states.pointers[slot], floats_of(array))
        self.busy = False
        return slot

    def close(self, slot):
        """Close a stream; its slot may be given to another. ValueError if it is not open."""
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        self.is_open[i] = 0
        self.free.append(i)
        self.busy = False

    def reset(self, slot):
        """Set a stream back to the model's initial state. ValueError if it is not open."""
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        gru_state_init(self.model.model, self.states.pointers[i])
        self.busy = False

    def get_state(self, slot):
        """Return a copy of a stream's state, float32 [state_size]. ValueError if it is not open."""
        array = np.empty(self.model.info.state_width, np.float32)
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        gru_state_get(self.model.model, self.states.pointers[i], floats_of(array))
        self.busy = False
        return array

    def set_state(self, slot, state):
        """Set a stream's state: an array [state_size] or ``state_bytes()``. ValueError if it is not open."""
        array = as_state(self.model, state, None)
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        gru_state_set(self.model.model, self.states.pointers[i], floats_of(array))
        self.busy = False

    def state_bytes(self, slot):
        """Return a stream's state as bytes that carry the model's digest: another model refuses them."""
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        try:
            return pack_state(self.model, self.states.pointers[i])
        finally:
            self.busy = False

    cdef size_t choose(self, slots) except? 0:
        """Put the states of distinct open slots into self.chosen; return their number."""
        if not is_plain(slots, cnp.NPY_INTP, 1):
            slots = _inputs.slots(slots, self.capacity)
        cdef const Py_ssize_t *numbers = <const Py_ssize_t *>cnp.PyArray_DATA(<cnp.ndarray>slots)
        cdef Py_ssize_t n = cnp.PyArray_DIM(<cnp.ndarray>slots, 0), i, j, bad = -1
        for i in range(n):
            j = numbers[i]
            if j < 0 or j >= self.capacity or not self.is_open[j] or self.is_chosen[j]:
                bad = i
                break
            self.is_chosen[j] = 1
            self.chosen[i] = self.states.pointers[j]
        for i in range(n if bad < 0 else bad):
            self.is_chosen[numbers[i]] = 0
        if bad >= 0:
            j = numbers[bad]
            if j < 0 or j >= self.capacity:
                raise ValueError(f"slots must be from 0 to {self.capacity - 1}, got {j} at [{bad}]")
            raise ValueError(f"slots[{bad}] is {j}, which is {'given twice' if self.is_open[j] else 'not open'}")
        return n

    def step(self, slots, x, out=None):
        """Take one step of some of the streams, each with the bits that it would have alone.

        Parameters
        ----------
        slots : array_like of int [n]
            Distinct open slots, in any order.
        x : array_like [n, input_size], or [n] tokens
            Their inputs. A C-contiguous float32 (int32) array is not copied.
        out : ndarray float32 [n, output_size], optional
            Where to write the outputs.

        Returns
        -------
        ndarray float32 [n, output_size]
            ``out``, or a new array.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit; no state has changed then.
        RuntimeError
            If another thread is using the pool.

        Notes
        -----
        The GIL is released, except for work of a few microseconds.
        """
        cdef Model model = self.model
        cdef gru_run_args args
        cdef size_t n
        args.struct_nbytes = sizeof(args)
        args.vectors = NULL
        args.tokens = NULL
        if model.info.vocabulary:
            x = _inputs.tokens(x, "x", model.info.vocabulary, (1,))
            args.tokens = <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>x)
        else:
            if not is_plain(x, cnp.NPY_FLOAT32, 2) or x.shape[1] != model.info.input_width:
                x = _inputs.vectors(x, "x", model.info.input_width, (2,))
            args.vectors = floats_of(x)
        self.enter()
        try:
            n = self.choose(slots)
            if <size_t>cnp.PyArray_DIM(<cnp.ndarray>x, 0) != n:
                raise ValueError(f"x must have a row for each of the {n} slots, got the shape {x.shape}")
            y = out
            if out is not None:
                check_out(out, (n, model.info.output_width))
            if out is None or not out.flags.carray or np.may_share_memory(x, out):
                y = np.empty((n, model.info.output_width), np.float32)
            args.n_streams = n
            args.n_steps = 1
            args.states = self.chosen
            args.outputs = floats_of(y)
            args.lengths = NULL
            args.reset = NULL
            args.carry_padding = 0
            run(model, &args, self.n_threads, self.workspace, self.workspace_nbytes)
        finally:
            self.busy = False
        if out is not None and y is not out:
            out[...] = y
            return out
        return y

    def prepare(self, slots):
        """Compute the half of these streams' next step that does not depend on its input, now. Changes no result.

        Notes
        -----
        The GIL is released, except for work of a few microseconds.
        """
        cdef size_t n, i
        cdef gru_result code = GRU_OK
        self.enter()
        try:
            n = self.choose(slots)
            with nogil:
                for i in range(n):
                    code = gru_prepare(self.model.model, self.chosen[i], self.workspace)
            check(code)
        finally:
            self.busy = False

    def __reduce__(self):
        if self.busy:
            raise RuntimeError("this Pool is in use by another thread")
        states = {slot: self.get_state(slot) for slot in range(self.capacity) if self.is_open[slot]}
        return _load_pool, (self.model, self.capacity, self.n_threads, states, list(self.free))

    def __deepcopy__(self, memo):
        rebuild, arguments = self.__reduce__()
        return rebuild(*arguments)

    def __repr__(self):
        return f"<gru_engine.Pool of {len(self)} open streams, capacity {self.capacity}, of {self.model!r}>"


def _load_pool(Model model, capacity, threads, states, free):
    cdef Pool pool = Pool(model, capacity, threads)
    pool.free = list(free)
    for slot, state in states.items():
        pool.is_open[<Py_ssize_t>slot] = 1
        pool.set_state(slot, state)
    return pool
