# SPDX-License-Identifier: Apache-2.0
# Part of _core.pyx: states as arrays, bytes and blocks; what a step takes and gives.


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


cdef int set_state(Model model, float *block, const float *values) except -1:
    """Set the state of a block, the initial one if there are no values; unlike in C, its context stays."""
    cdef float *before = NULL
    if model.info.context_width:
        before = <float *>allocate(model.info.state_nbytes)
        memcpy(before, block, model.info.state_nbytes)
    if values is NULL:
        gru_state_init(model.model, block)
    else:
        gru_state_set(model.model, block, values)
    if before is not NULL:
        gru_copy_context(model.model, before, block)  # if there is one
        release(before)
    return 0


cdef get_context(Model model, const float *block):
    """The context of a block, float32 [context_size]; None if there is none."""
    if not model.info.context_width:
        return None
    array = np.empty(model.info.context_width, np.float32)
    return array if gru_state_context(model.model, block, floats_of(array)) == GRU_OK else None


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

    cdef set_contexts(self, contexts):
        """One context [C] for all, or one for each, [n, C]."""
        cdef Model model = self.model
        cdef const float *values = floats_of(contexts)
        cdef void *workspace = allocate(gru_step_workspace_nbytes(model.model))
        cdef gru_result code = GRU_OK
        cdef bint one = contexts.ndim == 1
        cdef size_t i
        with nogil:
            for i in range(self.n):
                if one and i:
                    code = gru_copy_context(model.model, self.pointers[0], self.pointers[i])
                else:
                    code = gru_set_context(
                        model.model, self.pointers[i], values + i * model.info.context_width, workspace
                    )
                if code != GRU_OK:
                    break
        release(workspace)
        check(code)

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


cdef bint is_named(object x) except -1:
    """Whether x is a dict, or the like, of inputs by name."""
    if PyLong_CheckExact(x) or cnp.PyArray_Check(x):  # without asking an abstract class
        return False
    return isinstance(x, dict) or isinstance(x, Mapping)


cdef tuple take_inputs(Model model, x, tuple axes, lengths=None):
    """The vectors, the tokens (None if there are none) and the shape of the axes in front, of which there may be `axes`."""
    cdef str label = "x"
    if is_named(x):
        _inputs.check_names(x, model.inputs)
        if model.info.n_inputs > 1:
            return _inputs.side_by_side(x, model.inputs, axes, lengths)
        x = x[model.input_names[0]]
        label = model.input_labels[0]
    if model.info.n_tokens == 0:
        array = _inputs.vectors(x, label, model.info.input_width, tuple([n + 1 for n in axes]))
        return array, None, array.shape[:-1]
    if model.info.n_inputs > 1:
        raise _inputs.not_named(x, model.inputs)
    if lengths is not None:
        x = _inputs.without_padding(x, lengths)
    array = _inputs.tokens(x, label, model.info.vocabulary, axes)
    return None, array, array.shape


cdef int32_t as_token(object x, size_t vocab, object name) except -1:
    cdef int overflow = 0
    cdef long value = -1
    if PyLong_CheckExact(x):
        value = PyLong_AsLongAndOverflow(x, &overflow)
        if overflow or value < 0 or <size_t>value >= vocab:
            raise ValueError(f"{name} must be a token from 0 to {vocab - 1}, got {x}")
        return <int32_t>value
    if isinstance(x, bool):
        raise TypeError(f"{name} must be an integer token, got {x!r}")
    return _inputs.tokens(x, name, vocab, (0,)).item()


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
