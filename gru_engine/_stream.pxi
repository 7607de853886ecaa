# SPDX-License-Identifier: Apache-2.0
# Part of _core.pyx: streams.


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
            <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>array) if is_tokens else NULL,
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
