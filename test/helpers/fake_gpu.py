"""A GPU that is not there: tensors on it have shapes and no values, and refuse to meet those of the CPU.

torch's FakeTensorMode says where each result would be and raises where an operation mixes devices. What leaves the GPU
without `.cpu()` raises as it would on a real one; numbers that are asked for are 1, and true.
"""

from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

DEVICE = torch.device("meta")
"""torch's own device without values. For cuda a build without it aborts at the first gradient."""
DTYPES = {dtype: torch.empty(0, dtype=dtype).numpy().dtype for dtype in (
    torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool
)}  # fmt: skip


def _numpy(tensor, *_args, **_options):
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
    return np.ones(tensor.shape, DTYPES[tensor.dtype])


def _apply(module, change, recurse=True):
    """As Module._apply, which cannot change such tensors in place: new ones take their places."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(change(value.detach()), value.requires_grad)
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else change(value)
    return module


def _plain(optimizer, *given, fused=None, **rest):
    """Fused kernels are for devices that are there."""
    return optimizer(*given, **rest)


@contextmanager
def pretended_gpu():
    """Within it DEVICE can be used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
        patch.setattr(torch.optim, "AdamW", partial(_plain, torch.optim.AdamW))
        patch.setattr(torch.nn.Module, "_apply", _apply)
        patch.setattr(FakeTensor, "numpy", _numpy)
        patch.setattr(FakeTensor, "__array__", _numpy, raising=False)
        patch.setattr(FakeTensor, "__float__", lambda tensor: 1.0)
        patch.setattr(FakeTensor, "__int__", lambda tensor: 1)
        patch.setattr(FakeTensor, "__bool__", lambda tensor: True)
        patch.setattr(FakeTensor, "item", lambda tensor: 1)
        patch.setattr(FakeTensor, "tolist", lambda tensor: _numpy(tensor.cpu()).tolist())
        patch.setattr(FakeTensor, "data_ptr", lambda tensor: id(tensor))
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield DEVICE
