# SPDX-License-Identifier: Apache-2.0
"""Reading checkpoints without the framework: PyTorch's zip format, safetensors and ``.npz``.

A ``.pt`` file is a zip archive of raw storages and one pickle that says which tensor lies where. A pickle is a program; this
reader runs it in an interpreter that knows containers, numbers, strings and the handful of names with which PyTorch writes
tensors, and refuses everything else by name. No code of the file is ever executed, nothing of it is imported.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gru_engine.export.common import Array, ExportError

Arrays = dict[str, Array]

_DTYPES = {
    # of PyTorch's storages and of safetensors: data type in the file; bfloat16 is the upper half of a float32
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16",
    "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip

_MOST_REPEATED = 2**24  # numbers that a tensor may have more than its storage (one made by expand)


def read_arrays(path: str | os.PathLike[str], key: str | None = None) -> Arrays:
    """Read the named arrays of a checkpoint.

    Parameters
    ----------
    path : path
        A file written by ``torch.save`` (since PyTorch 1.6), ``safetensors`` or ``numpy.savez``; which one, its content says.
    key : str, optional
        Where the file holds several dictionaries of tensors (a model and its average, say), the name of the one to take;
        names of nested ones are joined by dots.

    Returns
    -------
    dict
        Arrays by name, in the file's order. bfloat16 becomes float32, exactly.

    Raises
    ------
    ExportError
        If the file cannot be read, holds something else than arrays, or several dictionaries of them and ``key`` is not given.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:4] != b"PK\x03\x04":
        if start[:1] == b"\x80" or start[:6] in (b"ustar\0", b"(dp0\n"):
            raise ExportError(
                f"{path} is a bare pickle, as torch.save wrote before PyTorch 1.6; load it with torch and save it again"
            )
        return _read_safetensors(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith(".npy") for name in archive.namelist()):
                return _read_npz(path)
            return _choose(_TorchArchive(archive, str(path)).load(), path, key)
    except ExportError:
        raise
    except Exception as error:  # what zipfile may raise for a damaged archive is no fixed list
        raise ExportError(f"{path} is not a readable zip archive: {error}") from error


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error


def _read_safetensors(path: Path) -> Arrays:
    try:
        import safetensors
    except ImportError as error:
        raise ExportError(f"{path} is no zip archive; to read safetensors, pip install safetensors") from error
    deserialize: Any = safetensors.deserialize  # the numpy API refuses bfloat16
    try:
        tensors = deserialize(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ExportError(
            f"{path} is neither a checkpoint of PyTorch (a zip archive) nor a safetensors file: {error}"
        ) from error
    arrays = {}
    for name, tensor in sorted(tensors):
        if tensor["dtype"] not in _DTYPES:
            raise ExportError(f"{path}: {name} has the data type {tensor['dtype']}, which is not supported")
        flat = _decode(bytes(tensor["data"]), _DTYPES[tensor["dtype"]], "<")
        arrays[name] = flat.reshape(tensor["shape"])
    return arrays


def _decode(data: bytes, dtype: str, order: str) -> Array:
    """Flat array of what is in the file; bfloat16 widened."""
    flat: Array
    if dtype == "bf16":
        flat = (np.frombuffer(data, order + "u2").astype(np.uint32) << 16).view(np.float32)
    elif dtype == "?":
        flat = np.frombuffer(data, np.uint8) != 0
    else:
        flat = np.frombuffer(data, order + dtype).astype(dtype)
    return flat


# ---- the dictionary of the model


def _choose(content: Any, path: Path, key: str | None) -> Arrays:
    """The one dictionary of tensors among everything a checkpoint holds."""
    found: dict[str, dict[str, _Tensor]] = {}
    seen = set()
    waiting = [("", content)]
    while waiting:
        name, value = waiting.pop(0)
        if not isinstance(value, dict) or id(value) in seen:
            continue
        seen.add(id(value))  # a pickle can put a dictionary into itself
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, _Tensor)}
        if tensors:
            found[name] = tensors
        waiting += [(f"{name}.{k}" if name else k, v) for k, v in value.items() if isinstance(k, str)]

    names = ", ".join(f"{name!r} ({len(tensors)} tensors)" for name, tensors in found.items()) or "none"
    if key is not None and key not in found:
        raise ExportError(f"{path} has no dictionary of tensors named {key!r}; there are: {names}")
    if not found:
        kind = "one tensor" if isinstance(content, _Tensor) else type(content).__name__
        raise ExportError(f"{path} holds no dictionary of tensors but {kind}; {_ADVICE}")
    if key is None and len(found) > 1:
        raise ExportError(f"{path} holds several dictionaries of tensors: {names}; say which one to take (--key)")
    chosen = found[key] if key is not None else next(iter(found.values()))
    return {name: tensor.array() for name, tensor in chosen.items()}


# ---- PyTorch's zip format


class _Closed:
    """What a pickle may hold but not change: the instruction that sets an object's attributes is refused."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ExportError("a tensor has attributes of its own, which are not supported")


class _Storage(_Closed):
    """The numbers that tensors are views of."""

    __slots__ = ("flat",)

    def __init__(self, flat: Array):
        self.flat = flat


class _StorageType(_Closed):
    """The data type of a storage."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Tensor(_Closed):
    """A strided view of a storage. No array is made before all of it is checked."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any):
        if not isinstance(storage, _Storage) or not all(
            type(n) is int and 0 <= n < 2**62 for n in (offset, *size, *stride)
        ):
            raise ExportError(f"a tensor is described by {offset!r}, {size!r}, {stride!r}")
        if len(size) != len(stride):
            raise ExportError(f"a tensor has the shape {list(size)}, but the strides {list(stride)}")
        length, elements = len(storage.flat), math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride))
        if elements and (last >= length or elements > max(length, _MOST_REPEATED)):
            raise ExportError(
                f"a tensor of shape {list(size)} at {offset} reaches beyond its storage of {length} numbers"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def array(self) -> Array:
        """The tensor as an array of its own."""
        flat = self.storage.flat
        if 0 in self.size:
            return np.zeros(self.size, flat.dtype)
        strides = [step * flat.itemsize for step in self.stride]
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.size, strides).copy()


class _RebuildTensor(_Closed):
    """Stands for ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> _Tensor:
        if metadata:
            raise ExportError(f"a tensor is marked as {metadata!r}, which is not supported")
        return _Tensor(storage, offset, size, stride)


class _RebuildParameter(_Closed):
    """Stands for ``torch._utils._rebuild_parameter``."""

    __slots__ = ()

    def __call__(self, data: Any, requires_grad: Any = False, hooks: Any = None) -> Any:
        return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", name): _StorageType(name) for name in _DTYPES if name.endswith("Storage")},
}

_ADVICE = "save a state_dict(), nothing but tensors: torch.save(model.state_dict(), path)"


class _Unpickler(pickle.Unpickler):
    """Makes containers, numbers, strings and tensors; looks nothing up anywhere but in ``_ALLOWED``."""

    def __init__(self, file: Any, archive: _TorchArchive):
        super().__init__(file, encoding="utf-8")
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ExportError(
                f"{self._archive.path} wants to make a {module}.{name}, and only tensors are read; {_ADVICE}"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        return self._archive.storage(pid)


class _TorchArchive:
    def __init__(self, archive: zipfile.ZipFile, path: str):
        self.path = path
        self._archive = archive
        self._entries = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in self._entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ExportError(f"{path} is a zip archive, but not one of torch.save: it has {len(pickles)} data.pkl")
        self._root = pickles[0].removesuffix("data.pkl")
        if self._root + "constants.pkl" in self._entries:
            raise ExportError(f"{path} is a TorchScript archive, a program; {_ADVICE}")
        byte_order = self._read("byteorder") if self._root + "byteorder" in self._entries else b"little"
        if byte_order not in (b"little", b"big"):
            raise ExportError(f"{path}: the byte order is {byte_order!r}, expected little or big")
        self._order = "<" if byte_order == b"little" else ">"
        self._storages: dict[tuple[str, str], _Storage] = {}

    def _read(self, name: str) -> bytes:
        info = self._entries.get(self._root + name)
        if info is None:
            raise ExportError(f"{self.path} lacks its part {name!r}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise ExportError(f"{self.path}: {name!r} is compressed, which torch.save never does")
        return self._archive.read(info)

    def storage(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage" and isinstance(pid[2], str)):
            raise ExportError(f"{self.path}: a storage is described by {pid!r}")
        _, kind, key, _, length = pid
        if not isinstance(kind, _StorageType):
            raise ExportError(f"{self.path}: a storage has the type {kind!r}")
        if (kind.name, key) not in self._storages:
            data = self._read(f"data/{key}")
            dtype = _DTYPES[kind.name]
            size = 2 if dtype == "bf16" else np.dtype(dtype).itemsize
            if type(length) is not int or length < 0 or length * size > len(data):
                raise ExportError(
                    f"{self.path}: storage {key} has {len(data)} bytes, too few for {length!r} times {size}"
                )
            self._storages[kind.name, key] = _Storage(_decode(data[: length * size], dtype, self._order))
        return self._storages[kind.name, key]

    def load(self) -> Any:
        data = self._read("data.pkl")
        try:
            for opcode, argument, _ in pickletools.genops(data):
                # The unpickler makes room for as many remembered objects as the largest number says.
                if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= int(argument or 0) <= len(data):
                    raise ExportError(f"its data.pkl remembers an object as number {argument}")
            return _Unpickler(BytesIO(data), self).load()
        except ExportError as error:
            raise error if self.path in str(error) else ExportError(f"{self.path}: {error}") from None
        except RecursionError as error:
            raise ExportError(f"{self.path}: its data.pkl is nested too deeply") from error
        except Exception as error:  # a pickle can fail in any way; it has done nothing by then
            raise ExportError(f"{self.path}: its data.pkl is damaged: {type(error).__name__}: {error}") from error
