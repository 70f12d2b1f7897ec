"""EMA teacher: the targets of predictions are latents of a slow copy of the encoder, without gradient.

BYOL (arXiv 2006.07733) and I-JEPA (arXiv 2301.08243): an exponential moving average, a stop-gradient, and a predictor
on the student's side only, which a world model has anyway. Collapse is possible, but training avoids it in practice.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from jepa_ros.world_model.anti_collapse.protocol import AntiCollapse


class EmaTeacher(AntiCollapse):
    """Targets are the teacher's latents; there is no regulariser.

    The teacher copies the parts that `model.encode` uses. In training its BatchNorms use the statistics of the batch,
    as BYOL's do. In distributed training call convert_batch_norm first.

    model: the student. shape: ModelConfig.frame_shape. updates: length of training, over which the momentum rises from
    `start` to 1 along a cosine.
    """

    def __init__(self, model: nn.Module, shape: tuple[int, ...], updates: int, start: float = 0.996):
        super().__init__()
        self.teacher = _copy_encoder(model, shape).requires_grad_(False)
        self.updates, self.start = updates, start
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def momentum(self) -> float:
        """Return BYOL's momentum at step k of K: 1 - (1 - start)(cos(pi k / K) + 1) / 2."""
        done = min(1.0, int(self.step) / self.updates)
        return 1.0 - (1.0 - self.start) * (math.cos(math.pi * done) + 1.0) / 2.0

    @torch.no_grad()
    def targets(self, model: nn.Module, frames: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        return self.teacher.encode(frames)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Move the teacher towards the model by 1 - momentum."""
        student = dict(model.named_parameters())
        names, mine = zip(*self.teacher.named_parameters(), strict=True)
        torch._foreach_lerp_(mine, [student[name] for name in names], 1.0 - self.momentum())
        self.step += 1


def _copy_encoder(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Return a copy of the model with only the children that `encode` calls for frames (1, *shape)."""
    made = copy.deepcopy(model)
    called: set[nn.Module] = set()
    hooks = [m.register_forward_hook(lambda module, *_: called.add(module)) for m in made.modules()]
    made.eval()
    with torch.no_grad():
        made.encode(torch.zeros(1, *shape, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    for name, child in list(made.named_children()):
        if not any(module in called for module in child.modules()):
            delattr(made, name)
    return made.train(model.training)
