# SPDX-License-Identifier: Apache-2.0
# Part of _core.pyx: opening files, models.


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
    inputs : dict of str to slice or TokenInput
        The named inputs: parts of the input vector, and tokens. The name of an only input may be empty.
    input_size : int or None
        Floats per step, of all vectors together; None if there are none.
    vocab_size : int or None
        Size of the vocabulary; None if no input is tokens, or several are, of which ``inputs`` has the sizes.
    contexts : dict of str to slice
        The named parts of the context vector, which a sequence is given once. The name of an only one may be empty.
    context_size : int or None
        Floats of the context vector; None if there are no contexts.
    output_size : int
        Floats of an output vector.
    outputs : dict of str to slice
        The named parts of the output vector.
    causal : bool
        Whether it can be stepped. Networks with a reverse layer, windows that look ahead, or means, maxima and attention over
        the sequence see whole sequences only.
    per_sequence : bool
        Whether there is one output per sequence, of its last step or of all its steps, rather than one per step.
    least_steps : int
        Steps that a sequence must have: 1, or more, where a value per sequence is made of its steps, else 0.
    state_size : int
        Floats of a stream's state: what its GRUs, states and windows keep from step to step (docs/FORMAT.md, section 5).
    digest : str
        SHA-256, in hexadecimal, of everything that determines a result.
    path : str or None
        Absolute path of the file.
    nbytes : int
        Size of the file.
    """

    cdef gru_model *model
    cdef gru_info info
    cdef readonly dict inputs
    cdef readonly dict contexts
    cdef readonly dict outputs
    cdef tuple input_names, input_labels
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
        self.inputs = {}
        self.contexts = {}
        self.outputs = {}
        cdef const char *output
        cdef size_t first, width, vocabulary, i
        for i in range(self.info.n_inputs):
            gru_get_input(self.model, i, &output, &first, &width, &vocabulary)
            part = _inputs.TokenInput(vocabulary) if vocabulary else slice(first, first + width)
            self.inputs[output.decode()] = part
        self.input_names = tuple(self.inputs)
        self.input_labels = tuple([f"x[{key!r}]" for key in self.inputs])  # what messages call them
        for i in range(self.info.n_contexts):
            gru_get_context(self.model, i, &output, &first, &width)
            self.contexts[output.decode()] = slice(first, first + width)
        for i in range(self.info.n_outputs):
            gru_get_output(self.model, i, &output, &first, &width)
            self.outputs[output.decode()] = slice(first, first + width)

    @property
    def input_size(self):
        return self.info.input_width or None

    @property
    def vocab_size(self):
        return self.info.vocabulary if self.info.n_tokens == 1 else None

    @property
    def context_size(self):
        return self.info.context_width or None

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
    def least_steps(self):
        return self.info.least_steps

    def output_steps(self, n_steps):
        """Number of output vectors of a sequence.

        Parameters
        ----------
        n_steps : int
            Of the input, T.

        Returns
        -------
        int
            T, unless the network has strides, convolutions without padding or repeated values; 1 if ``per_sequence``.
        """
        if isinstance(n_steps, bool) or not isinstance(n_steps, (int, np.integer)):
            raise TypeError(f"n_steps must be an integer, got {n_steps!r}")
        if n_steps < 0:
            raise ValueError(f"n_steps must not be negative, got {n_steps}")
        return gru_output_steps(self.model, n_steps)

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
        kind = f"{self.input_size} floats" if self.info.input_width else ""
        kind += " and " if self.info.input_width and self.info.n_tokens else ""
        if self.info.n_tokens == 1:
            kind += f"tokens below {self.vocab_size}"
        elif self.info.n_tokens:
            kind += f"{self.info.n_tokens} tokens"
        if self.info.context_width:
            kind += f", context of {self.info.context_width}"
        return (
            f"<gru_engine.Model {kind} -> {self.output_size} floats"
            f"{' per sequence' if self.info.per_sequence else ''}, state of {self.state_size}, "
            f"{self.info.n_nodes} operations, {self.nbytes} bytes, {self.digest[:12]}>"
        )

    def summary(self):
        """Return a table of the operations, then facts of the file, as a string of some lines."""
        from gru_engine.format import read, unpack

        file = read(self._file())
        where, dtypes = self.path or "from bytes", " and ".join(file.dtypes)
        return f"{unpack(file).summary()}\nfile: {where}, {self.nbytes} bytes, {dtypes}, digest {self.digest[:12]}"

    def __reduce__(self):
        if self.path is None or self.copied:
            return _load_bytes, (bytes(self._file()), self.verified)
        return _load_path, (self.path, self.digest, self.verified)

    def _scores(self, number):
        """What an output holds, by its operation: 1 + its place in ``generation.SCORES``; 0 if it cannot be told; -1 if
        the model does not read one token per step and nothing else.
        """
        if self.info.n_tokens != 1 or self.info.input_width:
            return -1
        return <int>gru_get_scores(self.model, number)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def stream(self, state=None, threads=1, context=None):
        """Begin a stream: this model with a state of its own.

        Parameters
        ----------
        state : array_like [state_size] or bytes, optional
            The state to begin with; the model's initial state if not given. Bytes come from ``Stream.state_bytes``.
        threads : int
            Most threads that a call may use.
        context : array_like [context_size], or dict of str to array_like, optional
            What the stream is given once, as for ``Stream.set_context``.

        Returns
        -------
        Stream

        Raises
        ------
        ValueError
            If the network is not causal, the state is of another size or another model's, or the context does not fit.
        """
        return Stream(self, state, threads, context)

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

    def run(
        self, x, *, lengths=None, reset=None, state=None, return_state=False, threads=1, padding="zero", context=None
    ):
        """Run whole sequences.

        Each row of the result has the same bits as stepping that sequence alone.

        Parameters
        ----------
        x : array_like, or dict of str to array_like
            [T, input_size] or [B, T, input_size] real numbers, used as float32; [T] or [B, T] integers if the network
            reads tokens. A C-contiguous float32 (int32) array is not copied. Several inputs are a dict of such arrays
            by name, each as wide as that input, or, if all of them are vectors, one array of all side by side.
        lengths : array_like [B], optional
            Valid steps of each sequence; an integer for a single one. Steps after the end change nothing.
        reset : array_like [T] or [B, T], optional
            True where a new sequence begins: the state before that step is the model's initial one (for a reverse
            layer, which comes from the other side, before the step before it), and a window has zeros in place of the
            steps on the other side. Outputs per sequence are of all valid steps nevertheless.
        state : array_like [state_size] or [B, state_size], or bytes, optional
            States to begin with. Reverse layers begin with theirs at the sequence's end.
        return_state : bool
            Whether to return the states after the last valid step as well.
        threads : int
            Most threads to use; sequences are shared out among them.
        padding : {"zero", "carry"}
            Outputs after a sequence's end: zeros, as ONNX and PyTorch's packed sequences have them, or the last valid
            output again, as under a Keras mask.
        context : array_like [context_size] or [B, context_size], or dict of str to such arrays
            What each sequence is given once: one for all of them, or one for each. Several contexts are a dict by name or
            one array of all side by side. Only where the network has contexts, and then it must be there.

        Returns
        -------
        ndarray float32
            [T, output_size] or [B, T, output_size]; [output_size] or [B, output_size] if outputs are per sequence. With
            strides, convolutions without padding and the like ``output_steps(T)`` steps instead of T.
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
        vectors, tokens, shape = take_inputs(self, x, (1, 2), lengths)
        cdef bint batched = len(shape) == 2
        cdef size_t n_streams = shape[0] if batched else 1
        cdef size_t n_steps = shape[1] if batched else shape[0]
        if n_steps < self.info.least_steps and n_streams:
            raise too_short(self, shape if vectors is None else vectors.shape)
        if lengths is not None:
            if not batched and np.ndim(lengths) == 0:
                lengths = [lengths]
            lengths = _inputs.lengths(lengths, n_streams, n_steps, self.info.least_steps)
        if reset is not None:
            if self.info.other_steps:
                raise ValueError("reset: values of the network have other steps than its inputs; it cannot begin anew at one")
            reset = _inputs.reset(reset, shape)
        if padding not in ("zero", "carry"):
            raise ValueError(f"padding must be 'zero' or 'carry', got {padding!r}")
        cdef int n_threads = as_threads(threads)
        states = States(self, n_streams)
        if state is not None:
            (<States>states).set(state, batched)
        if context is not None or self.info.context_width:
            (<States>states).set_contexts(_inputs.as_context(context, self.contexts, n_streams if batched else None))

        rows = () if self.info.per_sequence else (gru_output_steps(self.model, n_steps),)
        y = np.empty((*shape[:batched], *rows, self.info.output_width), np.float32)
        cdef gru_run_args args
        args.struct_nbytes = sizeof(args)
        args.n_streams = n_streams
        args.n_steps = n_steps
        args.vectors = NULL if vectors is None else floats_of(vectors)
        args.tokens = NULL if tokens is None else tokens_of(tokens)
        args.states = (<States>states).pointers
        args.outputs = floats_of(y)
        args.lengths = NULL if lengths is None else <size_t *>cnp.PyArray_DATA(<cnp.ndarray>lengths)
        args.reset = NULL if reset is None else <uint8_t *>cnp.PyArray_DATA(<cnp.ndarray>reset)
        args.carry_padding = padding == "carry"
        run(self, &args, n_threads)
        if return_state:
            return y, (<States>states).get(batched)
        return y


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
