# SPDX-License-Identifier: Apache-2.0
"""This engine, and the peers that are runtimes: ONNX Runtime, OpenVINO, tract, ncnn.

A peer turns a case into a Program. Each is called in the best way that its documentation knows: inputs and outputs
stand where they will be read and written, the state is carried from step to step without a copy, and nothing is
converted. What differs from call to call in use (the input's values) is written into the same array by the user; that
is nobody's work here. NumPy is in peers_numpy.py, libraries of tensors in peers_tensors.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np

import gru_engine as ge
from benchmarks.cases import Case
from gru_engine.layers import Gru


class Unsupported(Exception):
    """This peer cannot do this case; the text says why."""


class Program:
    """A case ready to be called: one step of one stream or a batch, or one sequence.

    ``call`` is what is timed one by one, ``loop(n)`` n of them. ``feed`` writes the next input: [B, I] or tokens [B] for a step,
    [T, B, I] for a sequence. ``result`` is the last output, [B, O] or [T, B, O].
    """

    call: Callable[[], Any]
    feed: Callable[[np.ndarray], None]
    result: Callable[[], np.ndarray]

    def loop(self, n: int) -> None:
        """Call n times."""
        call = self.call
        for _ in repeat(None, n):
            call()


class Peer:
    """A peer: what makes Programs."""

    name = ""
    package = ""

    def version(self) -> str:
        """The version of its package."""
        from importlib.metadata import version

        return version(self.package)

    def program(self, case: Case) -> Program:
        """The case ready to be called, or Unsupported."""
        raise NotImplementedError

    def loaders(self, case: Case, folder: Path) -> dict[str, Callable[[], Any]]:
        """Ways to get the case's model from a file in this folder to where it can take a step."""
        raise Unsupported("its loading is not measured")


# ---- this engine


class GruEngine(Peer):
    """This engine: a Stream for one stream, a Pool for a batch, Model.run for sequences."""

    name = package = "gru_engine"

    def program(self, case: Case, dtype: str = "float32") -> Program:
        model = saved(case, dtype)
        if case.steps > 1:
            return _EngineSequence(model, case)
        return _EngineStream(model) if case.batch == 1 else _EnginePool(model, case)

    def loaders(self, case: Case, folder: Path) -> dict[str, Callable[[], Any]]:
        path = folder / "model.gru"
        case.net.save(path)
        return {"gru_engine": lambda: ge.load(path), "gru_engine, verify=False": lambda: ge.load(path, verify=False)}


def saved(case: Case, dtype: str = "float32") -> ge.Model:
    """The case's network, with weights of this type, as a Model that is mapped from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{case.name}.gru"
        case.net.save(path, dtype=dtype)
        return ge.load(path)


class _EngineStream(Program):
    def __init__(self, model: ge.Model, threads: int = 1) -> None:
        self.stream = model.stream(threads=threads)
        self.x: Any = 0 if model.vocab_size else np.zeros(model.input_size, np.float32)
        self.y = np.zeros(model.output_size, np.float32)

    def feed(self, x: np.ndarray) -> None:
        self.x = int(x[0]) if x.ndim == 1 else np.ascontiguousarray(x[0])
        self.call = partial(self.stream.step, self.x, out=self.y)

    def loop(self, n: int) -> None:
        step, x, y = self.stream.step, self.x, self.y
        for _ in repeat(None, n):
            step(x, out=y)

    def result(self) -> np.ndarray:
        return self.y[None]


class _EnginePool(Program):
    def __init__(self, model: ge.Model, case: Case, threads: int = 1) -> None:
        self.pool = model.pool(case.batch, threads=threads)
        self.slots = np.array([self.pool.open() for _ in range(case.batch)])
        self.x = np.zeros((case.batch, model.input_size), np.float32)
        self.y = np.zeros((case.batch, model.output_size), np.float32)

    def feed(self, x: np.ndarray) -> None:
        self.x[:] = x

    def call(self) -> None:
        self.pool.step(self.slots, self.x, out=self.y)

    def loop(self, n: int) -> None:
        step, slots, x, y = self.pool.step, self.slots, self.x, self.y
        for _ in repeat(None, n):
            step(slots, x, out=y)

    def result(self) -> np.ndarray:
        return self.y


class _EngineSequence(Program):
    def __init__(self, model: ge.Model, case: Case) -> None:
        self.model = model
        self.one = case.batch == 1

    def feed(self, x: np.ndarray) -> None:
        self.x = np.ascontiguousarray(x[:, 0] if self.one else x.transpose(1, 0, 2))

    def call(self) -> None:
        self.y = self.model.run(self.x)

    def result(self) -> np.ndarray:
        return self.y[:, None] if self.one else self.y.transpose(1, 0, 2)


# ---- runtimes that read ONNX


def onnx_file(case: Case) -> bytes:
    """The case's network as an ONNX model."""
    from benchmarks.onnx_model import convert

    return convert(case.net, case.batch, case.steps)


class _Onnx(Program):
    """Arrays x, and the states twice: a step reads one set and writes the other."""

    def __init__(self, case: Case) -> None:
        net, batch, steps = case.net, case.batch, case.steps
        tokens = net.vocab_size is not None
        widths = [layer.width for layer in net.layers if isinstance(layer, Gru)]
        self.x = np.zeros(
            (steps, batch) if tokens else (steps, batch, net.input_size), np.int64 if tokens else np.float32
        )
        self.states = [[np.zeros((1, batch, width), np.float32) for width in widths] for _ in "ab"]
        self.y = np.zeros((steps, batch, net.output_size), np.float32)
        self.only_state = steps == 1 and net.layers[-1].operation == "gru"
        self.is_sequence = steps > 1

    def feed(self, x: np.ndarray) -> None:
        self.x[:] = x if self.is_sequence else x[None]

    def result(self) -> np.ndarray:
        return self.y if self.is_sequence else self.y[0]


class OnnxRuntime(Peer):
    """InferenceSession.run with arrays."""

    name, package = "onnxruntime", "onnxruntime"

    def program(self, case: Case) -> Program:
        return _OrtRun(case)

    def loaders(self, case: Case, folder: Path) -> dict[str, Callable[[], Any]]:
        path = folder / "model.onnx"
        path.write_bytes(onnx_file(case))
        return {self.name: lambda: _session(str(path))}


def _session(model: bytes | str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Unsupported(f"onnxruntime: {str(error).splitlines()[0][:200]}") from None


class _OrtRun(_Onnx):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.session = _session(onnx_file(case))
        names = [f"h{i}" for i in range(len(self.states[0]))]
        self.feeds = {"x": self.x, **dict(zip(names, self.states[0]))}
        self.outputs = [output.name for output in self.session.get_outputs()]
        if self.only_state:
            self.call = self.call_gru
        elif self.is_sequence:
            self.outputs, self.call = ["y"], self.call_sequence
        self.state_names = names

    def call_gru(self) -> None:
        feeds = self.feeds
        feeds["h0"] = self.session.run(self.outputs, feeds)[0]

    def call_sequence(self) -> None:
        self.y = self.session.run(self.outputs, self.feeds)[0]

    def call(self) -> None:
        self.y, *states = self.session.run(self.outputs, self.feeds)
        for name, state in zip(self.state_names, states):
            self.feeds[name] = state

    def loop(self, n: int) -> None:
        if not self.only_state:
            super().loop(n)
            return
        run, outputs, feeds = self.session.run, self.outputs, self.feeds
        for _ in repeat(None, n):
            feeds["h0"] = run(outputs, feeds)[0]

    def result(self) -> np.ndarray:
        return self.feeds["h0"][0] if self.only_state else super().result()


class OnnxRuntimeBinding(Peer):
    """InferenceSession.run_with_iobinding: two bindings, each of which reads the states that the other wrote."""

    name, package = "onnxruntime-io", "onnxruntime"

    def program(self, case: Case) -> Program:
        return _OrtBinding(case)


class _Alternating(_Onnx):
    """Two calls that take turns; in a sequence there is one."""

    def take_turns(self, calls: list[Callable[[], Any]]) -> None:
        """Call the first, the second, the first ..."""
        self.calls, self.turn = cycle(calls), 1

    def call(self) -> None:
        self.turn ^= 1
        next(self.calls)()

    def loop(self, n: int) -> None:
        self.turn ^= n & 1
        for call in islice(self.calls, n):
            call()

    def result(self) -> np.ndarray:
        # The call of turn 0 reads the states a and writes b.
        return self.states[1 - self.turn][0][0] if self.only_state else super().result()


class _OrtBinding(_Alternating):
    def __init__(self, case: Case) -> None:
        import onnxruntime as ort

        super().__init__(case)
        self.session = _session(onnx_file(case))
        wrap = ort.OrtValue.ortvalue_from_numpy  # shares the array's memory
        x, y, sets = wrap(self.x), wrap(self.y), [[wrap(state) for state in states] for states in self.states]
        self.bindings = []
        for before, after in ((0, 1), (1, 0)):
            binding = self.session.io_binding()
            binding.bind_ortvalue_input("x", x)
            if not self.only_state:
                binding.bind_ortvalue_output("y", y)
            for i, (old, new) in enumerate(zip(sets[before], sets[after])):
                binding.bind_ortvalue_input(f"h{i}", old)
                if not self.is_sequence:
                    binding.bind_ortvalue_output(f"n{i}", new)
            self.bindings.append(binding)
        if self.is_sequence:
            self.bindings = self.bindings[:1]
        self.run = self.session.run_with_iobinding
        self.turn, self.calls = 1, cycle(self.bindings)

    def call(self) -> None:
        self.turn ^= 1
        self.run(next(self.calls))

    def loop(self, n: int) -> None:
        self.turn ^= n & 1
        run = self.run
        for binding in islice(self.calls, n):
            run(binding)


class OpenVino(Peer):
    """Two infer requests on shared memory, each of which reads the states that the other wrote."""

    name = package = "openvino"

    def program(self, case: Case) -> Program:
        return _OpenVino(case)

    def loaders(self, case: Case, folder: Path) -> dict[str, Callable[[], Any]]:
        import openvino as ov

        path = folder / "model.onnx"
        path.write_bytes(onnx_file(case))
        core = ov.Core()
        return {self.name: lambda: core.compile_model(path, "CPU", OPENVINO).create_infer_request()}


OPENVINO = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32"}  # fmt: skip


class _OpenVino(_Alternating):
    def __init__(self, case: Case) -> None:
        import openvino as ov

        super().__init__(case)
        try:
            core = ov.Core()
            self.compiled = core.compile_model(core.read_model(onnx_file(case), b""), "CPU", OPENVINO)
            self.requests = []
            for before, after in ((0, 1), (1, 0)):
                request = self.compiled.create_infer_request()
                request.set_tensor("x", ov.Tensor(self.x, shared_memory=True))
                if not self.only_state:
                    request.set_tensor("y", ov.Tensor(self.y, shared_memory=True))
                for i, (old, new) in enumerate(zip(self.states[before], self.states[after])):
                    request.set_tensor(f"h{i}", ov.Tensor(old, shared_memory=True))
                    if not self.is_sequence:
                        request.set_tensor(f"n{i}", ov.Tensor(new, shared_memory=True))
                self.requests.append(request)
        except RuntimeError as error:
            raise Unsupported(f"openvino: {' '.join(str(error).split('THROWN:')[-1].split())[-160:]}") from None
        self.take_turns([request.infer for request in (self.requests[:1] if self.is_sequence else self.requests)])


class Tract(Peer):
    """Runnable.run; the state goes round as a tensor."""

    name = package = "tract"

    def program(self, case: Case) -> Program:
        return _Tract(case)

    def loaders(self, case: Case, folder: Path) -> dict[str, Callable[[], Any]]:
        import tract

        path = folder / "model.onnx"
        path.write_bytes(onnx_file(case))
        return {self.name: lambda: tract.onnx().load(path).into_model().into_runnable()}


class _Tract(_Onnx):
    def __init__(self, case: Case) -> None:
        import tract

        super().__init__(case)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(onnx_file(case))
            try:
                model = tract.onnx().load(path)
                self.run = model.into_model().into_runnable().run
            except tract.TractError as error:
                raise Unsupported(f"tract: {str(error).splitlines()[0][:160]}") from None
        self.tensor = tract.Tensor.from_numpy
        self.inputs: list[Any] = [self.tensor(a) for a in (self.x, *self.states[0])]

    def feed(self, x: np.ndarray) -> None:
        super().feed(x)
        self.inputs[0] = self.tensor(self.x)

    def call(self) -> None:
        inputs = self.inputs
        if self.is_sequence:
            self.out = self.run(inputs)[0]
        elif self.only_state:
            inputs[1] = self.out = self.run(inputs)[0]
        else:
            self.out, *inputs[1:] = self.run(inputs)

    def result(self) -> np.ndarray:
        y = self.out.to_numpy()
        return y if self.is_sequence else y[0]


# ---- ncnn


class Ncnn(Peer):
    """ncnn's GRU layer (it has the one kind, without a batch): an extractor per call, the state going round as a Mat."""

    name = package = "ncnn"

    def program(self, case: Case) -> Program:
        layers = case.net.layers
        if [layer.operation for layer in layers] != ["input", "gru"] or case.batch > 1:
            raise Unsupported("ncnn: only a plain GRU layer with batch 1 was written for it")
        gru = layers[1]
        if gru.reset != "after" or (gru.gate_activation.name, gru.activation.name) != ("sigmoid", "tanh"):
            raise Unsupported("ncnn: its GRU has the reset gate after the product, sigmoid and tanh")
        if gru.width >= 256:
            raise Unsupported(
                "ncnn: from H = 256 on its outputs, as it is called here, are wrong, and others each time (1.0.20261020)"
            )
        return _Ncnn(case, gru)


class _Ncnn(Program):
    def __init__(self, case: Case, layer: Gru) -> None:
        import ncnn

        h, i = layer.width, layer.W.shape[1]
        self.ncnn, self.steps = ncnn, case.steps
        self.net = ncnn.Net()
        options = self.net.opt
        options.num_threads = 1
        options.use_fp16_storage = options.use_fp16_packed = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        text = f"7767517\n3 4\nInput x 0 1 x\nInput h 0 1 h\nGRU gru 2 2 x h y n 0={h} 1={3 * h * i} 2=0\n"
        r_x, z_x, n_x = np.split(layer.b_x, 3)
        r_h, z_h, n_h = np.split(layer.b_h, 3)
        rows = [r_x + r_h, z_x + z_h, n_x, n_h]
        arrays = [layer.W, np.stack(rows), layer.U]
        flag = np.zeros(1, np.uint32).tobytes()  # not quantised
        with tempfile.TemporaryDirectory() as folder:
            param, weights = Path(folder) / "m.param", Path(folder) / "m.bin"
            param.write_text(text)
            weights.write_bytes(b"".join(flag + np.ascontiguousarray(a, np.float32).tobytes() for a in arrays))
            if self.net.load_param(str(param)) or self.net.load_model(str(weights)):
                raise Unsupported("ncnn: the model was not loaded")
        self.state = ncnn.Mat(np.zeros((1, h), np.float32)).clone()

    def feed(self, x: np.ndarray) -> None:
        self.x = self.ncnn.Mat(np.ascontiguousarray(x if x.ndim == 2 else x[:, 0])).clone()

    def call(self) -> None:
        extractor = self.net.create_extractor()
        extractor.input("x", self.x)
        extractor.input("h", self.state)
        if self.steps == 1:
            self.state = extractor.extract("n")[1]
        else:
            self.y = extractor.extract("y")[1]

    def result(self) -> np.ndarray:
        return np.array(self.state)[:1] if self.steps == 1 else np.array(self.y)[:, None]
