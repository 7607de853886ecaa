# SPDX-License-Identifier: Apache-2.0
# Part of _core.pyx: pools.


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

    def open(self, state=None, context=None):
        """Open a stream.

        Parameters
        ----------
        state : array_like [state_size] or bytes, optional
            The state to begin with; the model's initial state if not given.
        context : array_like [context_size], or dict of str to array_like, optional
            What the stream is given once, as for ``Stream.set_context``.

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
        vector = None if context is None else _inputs.as_context(context, self.model.contexts, None)
        if not self.free:  # after the conversion, which may run any code
            raise RuntimeError(f"all {self.capacity} slots of the pool are open")
        self.enter()
        cdef Py_ssize_t slot = self.free.pop()
        self.is_open[slot] = 1
        gru_state_init(self.model.model, self.states.pointers[slot])
        if array is not None:
            gru_state_set(self.model.model, self.states.pointers[slot], floats_of(array))
        if vector is not None:
            gru_set_context(self.model.model, self.states.pointers[slot], floats_of(vector), self.workspace)
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
        """Set a stream back to the model's initial state; its context stays. ValueError if it is not open."""
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        try:
            set_state(self.model, self.states.pointers[i], NULL)
        finally:
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
        """Set a stream's state: an array [state_size] or ``state_bytes()``; its context stays. ValueError if not open."""
        array = as_state(self.model, state, None)
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        try:
            set_state(self.model, self.states.pointers[i], floats_of(array))
        finally:
            self.busy = False

    def get_context(self, slot):
        """Return a copy of a stream's context vector, float32 [context_size]; None if it has none."""
        cdef Py_ssize_t i = self.slot_of(slot)
        self.enter()
        try:
            return get_context(self.model, self.states.pointers[i])
        finally:
            self.busy = False

    def set_context(self, slots, context):
        """Set what streams are given once; see ``Stream.set_context``.

        Parameters
        ----------
        slots : int or array_like of int [n]
            One open slot, or distinct ones.
        context : array_like [context_size] or [n, context_size], or dict of str to such arrays
            One for all of them, or one for each.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or the network has no contexts; nothing has changed then.
        RuntimeError
            If another thread is using the pool.
        """
        cdef Model model = self.model
        cdef size_t n, i
        cdef gru_result code = GRU_OK
        cdef const float *values
        cdef bint one
        if context is None:
            raise TypeError("context must be an array or a dict of arrays, got None")
        if np.ndim(slots) == 0:
            slots = [self.slot_of(slots)]
            array = _inputs.as_context(context, model.contexts, None)
        else:
            slots = _inputs.slots(slots, self.capacity)
            array = _inputs.as_context(context, model.contexts, len(slots))
        values, one = floats_of(array), array.ndim == 1
        self.enter()
        try:
            n = self.choose(slots)
            with nogil:
                for i in range(n):
                    if one and i:
                        code = gru_copy_context(model.model, self.chosen[0], self.chosen[i])
                    else:
                        code = gru_set_context(
                            model.model, self.chosen[i], values + i * model.info.context_width, self.workspace
                        )
                    if code != GRU_OK:
                        break
            check(code)
        finally:
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
        x : array_like [n, input_size], or [n] tokens, or dict of str to these
            Their inputs. A C-contiguous float32 (int32) array is not copied. Several inputs are a dict of them by name
            or, if all of them are vectors, one array of all side by side.
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
        cdef Py_ssize_t n_rows
        vectors, tokens = x, None
        if (
            model.info.n_tokens == 0
            and is_plain(x, cnp.NPY_FLOAT32, 2)
            and <size_t>cnp.PyArray_DIM(<cnp.ndarray>x, 1) == model.info.input_width
        ):
            n_rows = cnp.PyArray_DIM(<cnp.ndarray>x, 0)
        else:
            vectors, tokens, shape = take_inputs(model, x, (1,))
            n_rows = shape[0]
        args.vectors = NULL if vectors is None else floats_of(vectors)
        args.tokens = NULL if tokens is None else tokens_of(tokens)
        self.enter()
        try:
            n = self.choose(slots)
            if <size_t>n_rows != n:
                shape = (tokens if vectors is None else vectors).shape
                raise ValueError(f"x must have a row for each of the {n} slots, got the shape {shape}")
            y = out
            if out is not None:
                check_out(out, (n, model.info.output_width))
            if out is None or not out.flags.carray or np.may_share_memory(tokens if vectors is None else vectors, out):
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
                    if code != GRU_OK:
                        break
            check(code, self.model)
        finally:
            self.busy = False

    def __reduce__(self):
        if self.busy:
            raise RuntimeError("this Pool is in use by another thread")
        states = {
            slot: (self.get_state(slot), self.get_context(slot)) for slot in range(self.capacity) if self.is_open[slot]
        }
        return _load_pool, (self.model, self.capacity, self.n_threads, states, list(self.free))

    def __deepcopy__(self, memo):
        rebuild, arguments = self.__reduce__()
        return rebuild(*arguments)

    def __repr__(self):
        return f"<gru_engine.Pool of {len(self)} open streams, capacity {self.capacity}, of {self.model!r}>"


def _load_pool(Model model, capacity, threads, states, free):
    cdef Pool pool = Pool(model, capacity, threads)
    pool.free = list(free)
    for slot, (state, context) in states.items():
        pool.is_open[<Py_ssize_t>slot] = 1
        pool.set_state(slot, state)
        if context is not None:
            pool.set_context(slot, context)
    return pool
