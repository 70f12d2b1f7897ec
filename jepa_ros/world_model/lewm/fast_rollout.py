"""LeWM's rollout in evaluation mode: the same result as `predict` step by step, by fewer and larger operations.

- The modulation of the layers by the actions is computed once for all steps.
- BatchNorms are folded into the linear layers beside them, and linear layers in a row are multiplied.
- In the last layer only the last token is computed.
- The first token of a window attends only to itself, so it needs no query and no softmax.
- Keys and values are cached while the window grows. Once it slides, the position of every token changes.

Gradients reach the context and the actions, not the weights. Tensors inside have time before batch: (T, B, width).

With bfloat16 the matrix products of blocks and modulation are rounded. Tokens, actions and their encoder,
normalisations, the residual stream and the projector stay float32: with a rounded projector, a search that has nearly
converged cannot rank its candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.world_model.device import multiplies_bfloat16
from jepa_ros.world_model.lewm.predictor import ConditionalBlock, Projector
from jepa_ros.world_model.protocol import Context

Affine = tuple[torch.Tensor, torch.Tensor | None]
"""Weight (inputs, outputs) for a product from the right, and bias (outputs,)."""

Linear = tuple[torch.Tensor, torch.Tensor | None]
"""The same for F.linear: a view (outputs, inputs) of the weight, and bias."""


@dataclass(frozen=True)
class _Layer:
    """The weights of a ConditionalBlock.

    key_value: for tokens that need no query. fused_value_out: value and output projection multiplied, for a token that
    attends only to itself; None if the heads are so small that this saves nothing.
    """

    modulation: Linear
    attention_norm: nn.LayerNorm
    query: Linear
    key_value: Linear
    qkv: Linear
    fused_value_out: Linear | None
    output: Linear
    mlp_norm: nn.LayerNorm
    up_proj: Linear
    down_proj: Linear
    heads: int
    head_dim: int


class FastRollout:
    """Rollout of a LeWM with the weights that it has now. bfloat16: round products, see the module."""

    def __init__(self, model: nn.Module, bfloat16: bool = False):
        predictor, projector = model.predictor, model.prediction_projector
        self._versions = _WeightVersions(model)
        self._history, self._residual = model.history, model.residual
        self._latent = model.latent_shape[0]
        first, _, second = model.action_encoder.layers
        self._action_up_proj = _linear(_product(_affine(model.action_encoder.smoothing), _affine(first)))
        self._condition = _linear(_product(_affine(second), _affine_or_none(predictor.condition_projection)))
        self._layers = [_convert_block(block, bfloat16) for block in predictor.blocks]
        weight, bias = _affine_or_none(predictor.input_projection) or (None, None)
        positions = predictor.positions[0].detach()  # (frames, inputs)
        self._input = weight
        self._positions = (positions if weight is None else positions @ weight + bias)[:, None]
        self._norm = predictor.norm
        # The projector's first layer and the state's head have the same input: one product serves both.
        up, down = _fold_batch_norm(projector)
        heads = [up] if model.state_head is None else [up, _affine(model.state_head)]
        hidden = (torch.cat([w for w, _ in heads], 1), torch.cat([b for _, b in heads]))
        self._hidden, self._down_proj, self._hidden_width = _linear(hidden), _linear(down), up[0].shape[1]

    @property
    def is_current(self) -> bool:
        """Return whether the model's weights have not changed since this was made."""
        return self._versions.unchanged

    def rollout(self, context: Context, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See WorldModel.rollout."""
        first = context.latents.shape[1]
        tokens = list(torch.cat([context.latents, context.states], dim=-1).unbind(1))
        modulations = self._modulations(torch.cat([context.actions, actions], dim=1).transpose(0, 1))
        cache, cached = [_Cache() for _ in self._layers], 0
        for step in range(first, first + actions.shape[1]):
            grows = step <= self._history
            begin = cached if grows else step - self._history
            now = [layer[begin:step] for layer in modulations]
            tokens.append(self._next_token(torch.stack(tokens[begin:step]), now, cache if grows else None, cached))
            cached = step if grows else 0
        imagined = torch.stack(tokens[first:], 1)
        return imagined[..., : self._latent], imagined[..., self._latent :]

    def _modulations(self, actions: torch.Tensor) -> list[torch.Tensor]:
        """Actions (T, B, K) → (T, B, 6 * width) of each layer: shift, 1 + scale and gate of attention, then of MLP."""
        condition = F.silu(_apply(F.silu(_apply(actions, self._action_up_proj)), self._condition))
        return [_apply(condition, layer.modulation) for layer in self._layers]

    def _next_token(
        self, window: torch.Tensor, modulations: list[torch.Tensor], cache: list[_Cache] | None, cached: int
    ) -> torch.Tensor:
        """Return the token (B, inputs) after a window. window: its tokens (T, B, inputs) without the `cached` ones."""
        first = cached if cache else 0
        positions = self._positions[first : first + len(window)]
        x = window + positions if self._input is None else torch.matmul(window, self._input) + positions
        for number, (layer, modulation) in enumerate(zip(self._layers, modulations, strict=True)):
            layer_cache = cache[number] if cache else None
            x = _run_block(layer, x, modulation, layer_cache, last_only=number == len(self._layers) - 1)
        hidden = _apply(_norm(x[0], self._norm), self._hidden)
        latent = _apply(F.gelu(hidden[:, : self._hidden_width]), self._down_proj)
        if self._residual:
            latent = latent + window[-1, :, : self._latent]
        state = hidden[:, self._hidden_width :] + window[-1, :, self._latent :]
        return torch.cat([latent, state], dim=-1)


@dataclass
class _Cache:
    """Keys and values (T, B, inner) of a layer's tokens so far."""

    key: torch.Tensor | None = None
    value: torch.Tensor | None = None

    def extend(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Append those of further tokens; return all."""
        if self.key is not None:
            key, value = torch.cat([self.key, key]), torch.cat([self.value, value])
        self.key, self.value = key, value
        return key, value


def _run_block(
    layer: _Layer, x: torch.Tensor, modulation: torch.Tensor, cache: _Cache | None, last_only: bool
) -> torch.Tensor:
    """ConditionalBlock on tokens (T, B, width) that follow those in the cache → the same shape, or with last_only the
    last token (1, B, width)."""
    shift, scale, *later = modulation.chunk(6, dim=-1)
    seen = _norm(_addcmul(shift, _norm(x), scale), layer.attention_norm)
    if last_only and len(x) > 1:
        x, *later = (y[-1:] for y in (x, *later))
    gate, mlp_shift, mlp_scale, mlp_gate = later
    x = _addcmul(x, gate, _attention(layer, seen, len(x), cache))
    y = _norm(_addcmul(mlp_shift, _norm(x), mlp_scale), layer.mlp_norm)
    return _addcmul(x, mlp_gate, _apply(F.gelu(_apply(y, layer.up_proj)), layer.down_proj))


def _addcmul(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x + a * b, in float32 where one of a and b is rounded."""
    if torch.bfloat16 in (a.dtype, b.dtype):
        x, a, b = x.float(), a.float(), b.float()
    return torch.addcmul(x, a, b)


def _attention(layer: _Layer, seen: torch.Tensor, count: int, cache: _Cache | None) -> torch.Tensor:
    """Attention of the last `count` of the tokens `seen` (T, B, width), which follow those in the cache, to all of them
    → (count, B, width)."""
    whole, begins = count == len(seen), cache is None or cache.key is None
    fused = layer.fused_value_out if whole and begins else None
    sees_itself = fused is not None
    if whole and not sees_itself:
        query, key, value = _apply(seen, layer.qkv).chunk(3, dim=-1)
    else:
        query = _apply(seen[sees_itself - count :], layer.query) if count > sees_itself else None
        key, value = _apply(seen, layer.key_value).chunk(2, dim=-1)
    if cache is not None:
        key, value = cache.extend(key, value)
    parts = [] if fused is None else [_apply(seen[:1], fused)]
    if query is not None:
        parts.append(_apply(_causal_attention(layer, query, key, value), layer.output))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _causal_attention(layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal attention of the last Q of T tokens: query (Q, B, inner), key and value (T, B, inner) → (Q, B, inner).

    With few queries and keys, sums of products are faster than the attention kernel.
    """
    split = (layer.heads, layer.head_dim)
    query, key, value = (y.unflatten(-1, split) for y in (query, key, value))
    mixed, before = [], len(key) - len(query)
    for q in range(len(query)):
        seen = before + q + 1
        if seen == 1:
            mixed.append(value[0])
            continue
        # The scale head_dim ** -0.5 is in the query's weights.
        share = (query[q] * key[:seen]).sum(-1, keepdim=True).softmax(0)
        mixed.append((share * value[:seen]).sum(0))
    return torch.stack(mixed).flatten(2)


def _norm(x: torch.Tensor, norm: nn.LayerNorm | None = None) -> torch.Tensor:
    if norm is None:  # without weights, which the modulation replaces
        return torch.layer_norm(x, x.shape[-1:], None, None, 1e-6)
    return torch.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def _apply(x: torch.Tensor, linear: Linear) -> torch.Tensor:
    """x (..., inputs) → (..., outputs), in the dtype of the weights."""
    weight, bias = linear
    if weight.dtype != torch.bfloat16:
        return F.linear(x, weight, bias)
    x = x.to(weight.dtype)
    if multiplies_bfloat16(x.device):
        return F.linear(x, weight, bias)
    # Same rounding, but multiplied in float32, which is ten times faster without native support.
    product = F.linear(x.float(), weight.float()).to(weight.dtype)
    return product if bias is None else product + bias


def _linear(affine: Affine, bfloat16: bool = False) -> Linear:
    weight, bias = affine
    if bfloat16:
        weight, bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
    return weight.contiguous().T, bias


def _affine_or_none(layer: nn.Module) -> Affine | None:
    """Return weight and bias of a linear layer; None for an Identity."""
    return None if isinstance(layer, nn.Identity) else _affine(layer)


def _affine(layer: nn.Linear) -> Affine:
    return layer.weight.detach().T.contiguous(), None if layer.bias is None else layer.bias.detach()


def _product(first: Affine, second: Affine | None) -> Affine:
    """Return two layers in a row as one; None stands for the identity."""
    if second is None:
        return first
    (a, b), (c, d) = first, second
    bias = d if b is None else b @ c + (0.0 if d is None else d)
    return a @ c, bias


def _fold_batch_norm(projector: Projector) -> tuple[Affine, Affine]:
    """Return a projector's two linear layers, with the BatchNorm between them folded into the first."""
    up, norm, _, down = projector.layers
    factor = norm.weight.detach() * torch.rsqrt(norm.running_var + norm.eps)
    weight, bias = _affine(up)
    return (weight * factor, (bias - norm.running_mean) * factor + norm.bias.detach()), _affine(down)


def _convert_block(block: ConditionalBlock, bfloat16: bool) -> _Layer:
    attention, (mlp_norm, up, _, _, down, _) = block.attention, block.mlp
    weight, _ = _affine(block.modulation)
    width, inner = weight.shape[0], attention.heads * attention.head_dim
    bias = block.modulation.bias.detach().clone()
    for scale in (1, 4):  # of shift, scale, gate twice
        bias[scale * width : (scale + 1) * width] += 1.0
    qkv, _ = _affine(attention.qkv)
    qkv[:, :inner] *= attention.head_dim**-0.5
    output = _affine(attention.output[0])
    return _Layer(
        modulation=_linear((weight, bias), bfloat16),
        attention_norm=attention.norm,
        query=_linear((qkv[:, :inner], None), bfloat16),
        key_value=_linear((qkv[:, inner:], None), bfloat16),
        qkv=_linear((qkv, None), bfloat16),
        fused_value_out=_linear(_product((qkv[:, 2 * inner :], None), output), bfloat16) if inner > width else None,
        output=_linear(output, bfloat16),
        mlp_norm=mlp_norm,
        up_proj=_linear(_affine(up), bfloat16),
        down_proj=_linear(_affine(down), bfloat16),
        heads=attention.heads,
        head_dim=attention.head_dim,
    )


class _WeightVersions:
    """Detects changes of the weights that a rollout depends on, by address and version counter of each tensor."""

    def __init__(self, model: nn.Module):
        parts = (model.action_encoder, model.predictor, model.prediction_projector, model.state_head)
        modules = [module for part in parts if part is not None for module in part.modules()]
        self._stores = [tensors for m in modules for tensors in (m._parameters, m._buffers) if tensors]
        self._versions = self._read_versions()

    @property
    def unchanged(self) -> bool:
        return self._versions == self._read_versions()

    def _read_versions(self) -> list[tuple[int, int]]:
        return [
            (tensor.data_ptr(), tensor._version)
            for tensors in self._stores
            for tensor in tensors.values()
            if tensor is not None
        ]
