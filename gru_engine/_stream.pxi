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
    cdef float *joined  # several inputs of a step side by side: n_in floats, then n_tokens integers
    cdef size_t n_in, n_tokens, n_out
    cdef int n_threads
    cdef bint busy, short_step

    def __cinit__(self, Model model not None, state=None, threads=1, context=None):
        if not model.info.causal:
            raise ValueError(NOT_CAUSAL)
        self.model = model
        self.n_in = model.info.input_width
        self.n_tokens = model.info.n_tokens
        self.n_out = model.info.output_width
        self.n_threads = as_threads(threads)
        self.short_step = is_short(model, 1)
        self.block = <float *>allocate(model.info.state_nbytes)
        self.workspace = allocate(gru_step_workspace_nbytes(model.model))
        if model.info.n_inputs > 1:
            self.joined = <float *>allocate(self.n_in * sizeof(float) + self.n_tokens * sizeof(int32_t))
        gru_state_init(model.model, self.block)
        if state is not None:
            self.state = state
        if context is not None:
            self.set_context(context)

    def __dealloc__(self):
        release(self.block)
        release(self.workspace)
        release(self.joined)

    cdef int enter(self) except -1:
        if self.busy:
            raise RuntimeError("this Stream is in use by another thread; give each thread one of its own (Stream.copy)")
        self.busy = True
        return 0

    def step(self, x, out=None):
        """Take one step.

        Parameters
        ----------
        x : array_like [input_size] or int, or dict of str to these
            The input, used as float32, or a token. A C-contiguous float32 array is not copied. Several inputs are a dict
            of them by name or, if all of them are vectors, one array of all side by side.
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
        cdef const int32_t *tokens = NULL
        cdef list values = None
        if (
            self.n_tokens == 0
            and is_plain(x, cnp.NPY_FLOAT32, 1)
            and <size_t>cnp.PyArray_DIM(<cnp.ndarray>x, 0) == self.n_in
        ):
            vector = floats_of(x)
        elif is_named(x) or (self.n_tokens and self.joined is not NULL):
            values = self.named(x)
        elif self.n_tokens:
            token = as_token(x, self.model.info.vocabulary, "x")
            tokens = &token
        else:
            x = _inputs.vectors(x, "x", self.n_in, (1,))
            vector = floats_of(x)
        if values is not None and self.joined is NULL:  # an only input
            if self.n_tokens:
                token = values[0]
                tokens = &token
            else:
                x = values[0]
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
        if values is not None and self.joined is not NULL:
            self.join(values)
            vector = self.joined if self.n_in else NULL
            tokens = <const int32_t *>(self.joined + self.n_in) if self.n_tokens else NULL
        if self.short_step:
            code = gru_step(self.model.model, self.block, vector, tokens, result, self.workspace)
        elif self.n_threads == 1:
            with nogil:
                code = gru_step(self.model.model, self.block, vector, tokens, result, self.workspace)
        else:
            self.run_steps(vector, tokens, 1, result)
        self.busy = False
        check(code, self.model)
        if out is not None and y is not out:
            out[...] = y
            return out
        return y

    cdef list named(self, x):
        """The checked inputs of a step, given by name: for each of the model's a plain array or a token."""
        cdef Model model = self.model
        cdef const char *text
        cdef size_t first, width, vocabulary, i
        if not is_named(x):
            raise _inputs.not_named(x, model.inputs)
        cdef dict given = x if isinstance(x, dict) else dict(x)
        cdef list values = []
        cdef bint complete = len(given) == <Py_ssize_t>model.info.n_inputs
        for i in range(model.info.n_inputs):
            name = model.input_names[i]
            if not complete or name not in given:
                _inputs.check_names(given, model.inputs)
            gru_get_input(model.model, i, &text, &first, &width, &vocabulary)
            value = given[name]
            if vocabulary:
                value = as_token(value, vocabulary, model.input_labels[i])
            elif not (is_plain(value, cnp.NPY_FLOAT32, 1) and <size_t>cnp.PyArray_DIM(<cnp.ndarray>value, 0) == width):
                value = _inputs.vectors(value, model.input_labels[i], width, (1,))
            values.append(value)
        return values

    cdef void join(self, list values) noexcept:
        """Copy what `named` has returned to where a step reads it; the stream has been entered."""
        cdef int32_t *tokens = <int32_t *>(self.joined + self.n_in)
        cdef float *vectors = self.joined
        cdef cnp.npy_intp width
        for value in values:
            if cnp.PyArray_Check(value):
                width = cnp.PyArray_DIM(<cnp.ndarray>value, 0)
                memcpy(vectors, floats_of(value), width * sizeof(float))
                vectors += width
            else:
                tokens[0] = value
                tokens += 1

    def run(self, x):
        """Take many steps: a block of a longer sequence, continuing from the state.

        Parameters
        ----------
        x : array_like [T, input_size], or [T] tokens, or dict of str to these
            As for ``step``, with an axis for the steps in front.

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
        vectors, tokens, shape = take_inputs(model, x, (1,))
        cdef size_t n_steps = shape[0]
        if n_steps < model.info.least_steps:
            raise too_short(model, shape if vectors is None else vectors.shape)
        y = np.empty((*shape[: not model.info.per_sequence], self.n_out), np.float32)
        self.enter()
        self.run_steps(
            NULL if vectors is None else floats_of(vectors),
            NULL if tokens is None else tokens_of(tokens),
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

    def generate(
        self,
        n,
        first,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        seed=None,
        offset=0,
        stop=None,
        output=None,
        scores=None,
    ):
        """Generate tokens: choose one by the output, feed it, choose the next one by the new output, and so on.

        Parameters
        ----------
        n : int
            Most tokens to generate.
        first : int or array_like [T]
            The token, or the tokens of a prompt, to be fed first.
        temperature : float
            Probabilities are raised to the power of 1 / temperature: below 1 probable tokens become more probable. 0
            always takes the most probable one, the smallest such token if there are several.
        top_k : int, optional
            Choose among this many of the most probable tokens only.
        top_p : float, optional
            Choose among the fewest of the most probable tokens that together have at least this share of the
            probability (after temperature and top_k).
        seed : int, optional
            From 0 to 2**64 - 1: the same seed gives the same tokens on any machine. Without one it is a new one each
            time, from the operating system.
        offset : int
            How many of the seed's random numbers to skip. Each generated token takes one.
        stop : int or array_like, optional
            Tokens that end the generation.
        output : str, optional
            The name of the output that scores the next token, if the model has several. It must have as many values as
            there are tokens.
        scores : {"logits", "log_probabilities", "probabilities"}, optional
            What that output holds. By default as its operation says: a softmax makes probabilities, a log_softmax
            log-probabilities, a dense layer without an activation logits.

        Returns
        -------
        ndarray int32 [m]
            The generated tokens, m <= n. If one of ``stop`` was chosen it is the last one.

        Raises
        ------
        TypeError, ValueError
            If an argument has another kind, shape or range, or the model cannot generate tokens.
        FloatingPointError
            If an output is no distribution: a NaN, +infinity, a negative probability, or no token that is possible.
        RuntimeError
            If another thread is using the stream.

        After any exception, KeyboardInterrupt included, the state is as it was before the call.

        Notes
        -----
        Everything but the very last token has been fed then (with n = 0: of the prompt). To go on, hand that one over:
        ``a = s.generate(20, 0, seed=7)``, ``b = s.generate(20, a[-1], seed=7, offset=20)`` are the tokens of
        ``s.generate(40, 0, seed=7)``.

        docs/GENERATION.md defines the choice to the bit. The GIL is released, except for work of a few microseconds.
        """
        cdef Model model = self.model
        wanted = generation.sampling(
            model, n, first, temperature, top_k, top_p, seed, offset, stop, output, scores
        )
        tokens = np.empty(wanted.n, np.int32)
        cdef gru_generate_args args
        cdef const int32_t *prompt = <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>wanted.first)
        cdef int32_t *generated = <int32_t *>cnp.PyArray_DATA(<cnp.ndarray>tokens)
        args.struct_nbytes = sizeof(args)
        args.output = wanted.output
        args.scores = <gru_scores><int>wanted.scores
        args.temperature = wanted.temperature
        args.top_k = wanted.top_k
        args.top_p = wanted.top_p
        args.seed = wanted.seed
        args.offset = wanted.offset
        args.stop = <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>wanted.stop)
        args.n_stop = len(wanted.stop)
        self.enter()
        try:
            done = self.generate_slices(&args, prompt, len(wanted.first), generated, wanted.n)
        finally:
            self.busy = False
        if done < 0:
            raise generation.no_choice(list(model.outputs)[wanted.output], -1 - done)
        return tokens if done == wanted.n else tokens[:done].copy()

    cdef Py_ssize_t generate_slices(
        self, gru_generate_args *args, const int32_t *prompt, size_t n_prompt, int32_t *tokens, size_t n_tokens
    ) except? -1:
        """gru_generate in slices of some milliseconds, between which signals are looked after.

        Returns the number of tokens; or -1 - that number if the scores after them are no distribution.
        """
        cdef Model model = self.model
        # What a token costs, in bytes of weights that could be read meanwhile: the step, choosing, the call.
        cdef size_t cost = model.info.file_nbytes + 64 * model.info.vocabulary + 4096
        cdef size_t slice_tokens = SLICE_NBYTES // cost + 1
        cdef bint short_call = cost * (n_prompt + n_tokens) < KEEP_GIL_BELOW
        cdef int n_threads = 1 if self.short_step else self.n_threads
        cdef size_t nbytes = gru_generate_workspace_nbytes(model.model, n_threads)
        cdef char *memory = <char *>allocate(nbytes + model.info.state_nbytes)
        cdef char *before = memory + nbytes
        cdef size_t done = 0, n_new = 0, i
        cdef bint stopped = False, feeding
        cdef gru_result code = GRU_OK
        cdef _Team team = None
        memcpy(before, self.block, model.info.state_nbytes)
        try:
            team = borrow_team(n_threads)
            args.team = team.team if team is not None else NULL
            while True:
                args.first = prompt
                feeding = n_prompt > slice_tokens + 1
                if feeding:  # the first part of it alone
                    args.n_first = slice_tokens + 1
                    args.n_tokens = 0
                    prompt += slice_tokens
                    n_prompt -= slice_tokens
                else:
                    args.n_first = n_prompt
                    args.n_tokens = min(n_tokens - done, slice_tokens)
                args.tokens = tokens + done
                if short_call:
                    code = gru_generate(model.model, self.block, args, &n_new, memory, nbytes)
                else:
                    with nogil:
                        code = gru_generate(model.model, self.block, args, &n_new, memory, nbytes)
                done += n_new
                args.offset += n_new
                if code != GRU_OK:
                    memcpy(self.block, before, model.info.state_nbytes)
                    if code != GRU_ERROR_SCORES:
                        check(code, model)
                    return -1 - <Py_ssize_t>done
                if n_new:
                    for i in range(args.n_stop):
                        stopped |= args.stop[i] == tokens[done - 1]
                    prompt = tokens + done - 1
                    n_prompt = 1
                if not feeding and (stopped or done == n_tokens):
                    return done
                PyErr_CheckSignals()
        except BaseException:
            memcpy(self.block, before, model.info.state_nbytes)
            raise
        finally:
            give_back(n_threads, team)
            release(memory)

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
        check(code, self.model)

    def set_context(self, context):
        """Set what the stream is given once, before the first step or between two; the state does not change.

        What the network computes of contexts alone is computed now and kept until another context is set. ``reset``,
        assigning ``state`` and ``copy`` keep it. Setting the same again takes no more than a comparison.

        Parameters
        ----------
        context : array_like [context_size], or dict of str to array_like
            The context vector or, by name, its parts (``Model.contexts``).

        Raises
        ------
        TypeError, ValueError
            If it does not fit, or the network has no contexts; nothing has changed then.
        RuntimeError
            If another thread is using the stream.
        """
        cdef gru_result code
        if context is None:
            raise TypeError("context must be an array or a dict of arrays, got None")
        array = _inputs.as_context(context, self.model.contexts, None)
        cdef const float *vector = floats_of(array)
        self.enter()
        if self.short_step:
            code = gru_set_context(self.model.model, self.block, vector, self.workspace)
        else:
            with nogil:
                code = gru_set_context(self.model.model, self.block, vector, self.workspace)
        self.busy = False
        check(code)

    @property
    def context(self):
        """ndarray float32 [context_size]: a copy of the context vector; None if there is none."""
        self.enter()
        try:
            return get_context(self.model, self.block)
        finally:
            self.busy = False

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
        try:
            set_state(self.model, self.block, floats_of(array))
        finally:
            self.busy = False

    def state_bytes(self):
        """Return the state as bytes that carry the model's digest: another model refuses them.

        A context is no part of it: a stream that goes on from these bytes has to be given it again.
        """
        self.enter()
        try:
            return pack_state(self.model, self.block)
        finally:
            self.busy = False

    def reset(self):
        """Go back to the model's initial state. A context stays."""
        self.enter()
        try:
            set_state(self.model, self.block, NULL)
        finally:
            self.busy = False

    def copy(self):
        """Return a second stream that goes on from the same state, with the same context, independently."""
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
        return Stream, (self.model, self.state, self.n_threads, self.context)

    def __repr__(self):
        return f"<gru_engine.Stream of {self.model!r}>"
