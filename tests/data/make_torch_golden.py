# SPDX-License-Identifier: Apache-2.0
"""Make the checkpoints that tests/test_export_checkpoint.py reads without PyTorch, and what PyTorch itself makes of them.

Made with torch 2.13.0 and safetensors 0.8.0. The files are committed and stay: a new release gets new ones beside them.

    python tests/data/make_torch_golden.py
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

HERE = Path(__file__).parent


def mixed() -> "OrderedDict[str, torch.Tensor]":
    """Every data type, and every way in which a tensor can lie in its storage."""
    base = torch.randn(6, 5)
    shared = torch.arange(12.0)
    return OrderedDict(
        float32=torch.randn(3, 4),
        float64=torch.randn(3, 2, dtype=torch.float64),
        float16=torch.randn(7).half(),
        bfloat16=torch.randn(4, 3).bfloat16(),
        int64=torch.tensor([-(2**62), 5]),
        int32=torch.tensor([[-7], [8]], dtype=torch.int32),
        int16=torch.tensor([-300], dtype=torch.int16),
        int8=torch.tensor([-128, 127], dtype=torch.int8),
        uint8=torch.tensor([0, 255], dtype=torch.uint8),
        bool=torch.tensor([True, False, True]),
        transposed=base.t(),
        columns=base[:, 1:3],
        every_second=shared[1::2],
        tied=shared[4:8],
        expanded=torch.randn(1, 3).expand(4, 3),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=nn.Parameter(torch.randn(2)),
        **{"weight.with.dots": torch.randn(1)},
    )


class Chain(nn.Module):
    """Tokens -> embedding -> 2 bidirectional GRU layers -> linear."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(11, 4)
        self.gru = nn.GRU(4, 5, 2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear(10, 3)

    def forward(self, tokens):
        """Give the outputs of every step, and tanh of the linear layer over the states at both ends."""
        output, final = self.gru(self.emb(tokens))
        return self.fc(output), torch.tanh(self.fc(torch.cat([final[-2], final[-1]], 1)))


def main() -> None:
    torch.manual_seed(0)
    tensors = mixed()
    torch.save(tensors, HERE / "torch_mixed.pt")
    contiguous = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(contiguous, HERE / "torch_mixed.safetensors")
    wide = {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for n, t in contiguous.items()}
    np.savez(HERE / "torch_mixed.npz", **wide)

    chain = Chain().eval()
    tokens = torch.randint(0, 11, (3, 9))
    steps, summary = chain.double()(tokens)
    chain.float()
    torch.save(chain.state_dict(), HERE / "torch_chain.pt")
    np.savez(HERE / "torch_chain.npz", x=tokens.numpy(), steps=steps.detach().numpy(), summary=summary.detach().numpy())
    optimizer = torch.optim.Adam(chain.fc.parameters())
    chain.fc(torch.zeros(1, 10)).sum().backward()
    optimizer.step()
    training = {
        "model": {"fc.weight": torch.ones(2, 3)},
        "average": {"fc.weight": torch.zeros(2, 3)},
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "rate": 0.5,
    }
    torch.save(training, HERE / "torch_training.pt")
    torch.save(nn.GRU(1, 1), HERE / "torch_module.pt")
    torch.save({"weight": torch.ones(1)}, HERE / "torch_legacy.pt", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
