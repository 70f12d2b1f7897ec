"""Frozen encoders: patch features of a model in transformers' format, from a local directory."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from jepa_ros.errors import InputError
from jepa_ros.world_model.config import FrozenEncoderConfig, sha256

# model_type of config.json → class in transformers. Only these are built, so no code of a checkpoint is run.
KINDS = {
    "dinov2": "Dinov2Model",
    "dinov3_vit": "DINOv3ViTModel",
    "ijepa": "IJepaModel",
    "vjepa2": "VJEPA2Model",
}
# Mean and standard deviation of the colours that all of them were trained with (ImageNet's).
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class FrozenEncoder(nn.Module):
    """Patch features of one image, without CLS and register tokens; always in evaluation mode and without gradients.

    tokens: number of patches, row by row. width: of a feature. V-JEPA 2 gets the image repeated for each frame of its
    tubelet (2), and its features are layer-normed without weights, as in the training of V-JEPA 2-AC (arXiv 2506.09985,
    section 3; `normalize_reps` in its configuration). The others end in their own layer norm.
    """

    frozen = True  # checkpoints do not contain its weights, which stay in their own directory

    def __init__(self, kind: str, model: nn.Module, size: int):
        """model: an instance of KINDS[kind]. size: pixels of an image's side, a multiple of the patch."""
        super().__init__()
        config = model.config
        self.kind, self.size = kind, size
        self.tokens, self.width = (size // _patch_size(config)) ** 2, config.hidden_size
        self.model = model.encoder if kind == "vjepa2" else model  # without the predictor of pre-training
        self._prefix = {"dinov2": 1, "dinov3_vit": 1 + getattr(config, "num_register_tokens", 0)}.get(kind, 0)
        self._tubelet = getattr(config, "tubelet_size", 1)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, size, size), normalised by the encoder's mean and std → features (B, tokens, width)."""
        if self.kind == "vjepa2":
            clip = images[:, None].expand(-1, self._tubelet, -1, -1, -1)
            features = self.model(pixel_values_videos=clip).last_hidden_state
            return F.layer_norm(features, (self.width,))
        options = {"interpolate_pos_encoding": True} if self.kind == "ijepa" else {}
        return self.model(pixel_values=images, **options).last_hidden_state[:, self._prefix :]


def load_frozen_encoder(directory: Path, size: int) -> FrozenEncoder:
    """Load the encoder in `directory` (config.json and *.safetensors) for images of size x size pixels, in float32.

    Raises InputError where the directory or one of its files is missing or truncated, its kind is unknown, tensors are
    missing, or size is not a multiple of the encoder's patch.
    """
    kind = read_kind(directory)
    weight_files(directory)
    transformers = import_transformers()
    model_class = getattr(transformers, KINDS[kind])
    try:
        with _quiet(transformers):
            config = model_class.config_class.from_pretrained(directory, local_files_only=True)
            _check_size(directory, config, size)
            if kind == "vjepa2":
                config.crop_size = size  # its rotary positions count patches of this size
            model, found = model_class.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below
                output_loading_info=True,
            )
    except InputError:
        raise
    except Exception as error:  # transformers and safetensors raise many types for a damaged file
        raise InputError(f"encoder {directory}: expected a model of type {kind}, found {_reason(error)}") from None
    _check_tensors(directory, found)
    return FrozenEncoder(kind, model, size)


def load_configured_encoder(config: FrozenEncoderConfig, directory: Path, size: int) -> FrozenEncoder:
    """Load the encoder of the checkpoint `directory`, for images of size x size pixels.

    Raises InputError as load_frozen_encoder, and where its weights are not those that the predictor was trained with.
    """
    place = directory / config.directory
    encoder = load_frozen_encoder(place, size)
    if (found := weights_digest(place)) != config.sha256:
        raise InputError(
            f"encoder {place}: expected the weights that the model was trained with, SHA-256 {config.sha256[:16]}, "
            f"found {found[:16]}"
        )
    return encoder


def read_kind(directory: Path) -> str:
    """Return the model_type of an encoder's directory, one of KINDS. Raises InputError."""
    path = directory / "config.json"
    if not directory.is_dir():
        raise InputError(f"encoder {directory}: expected a directory in transformers' format, found none")
    if not path.is_file():
        raise InputError(f"encoder {directory}: expected config.json in transformers' format, found none")
    try:
        kind = json.loads(path.read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise InputError(f"encoder {path}: expected a JSON object, found {error}") from None
    if kind not in KINDS:
        raise InputError(f"encoder {path}: model_type: expected one of {', '.join(KINDS)}, found {kind}")
    return kind


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files of an encoder's directory by name. Raises InputError where there is none."""
    if files := sorted(directory.glob("*.safetensors")):
        return files
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    found = f"the pickle {pickles[0]}, which is never loaded" if pickles else "none"
    raise InputError(f"encoder {directory}: expected weights in *.safetensors, found {found}")


def weights_digest(directory: Path) -> str:
    """Return the SHA-256 (hex) of an encoder's safetensors files, in the order of their names."""
    return sha256(*weight_files(directory))


def resolve_encoder(name_or_path: str | Path, allow_download: bool = False) -> Path:
    """Return the directory of an encoder given by path or by the name of a Hugging Face repository (owner/name).

    allow_download: fetch config.json and safetensors of a repository; set only on the user's request. Raises InputError
    where there is no such directory or repository, or a download is needed and not allowed.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    name = str(name_or_path)
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"encoder {name}: expected a directory or a Hugging Face repository's name, found neither")
    if not allow_download:
        raise InputError(
            f"encoder {name}: expected a directory, found none; a Hugging Face repository is fetched when asked for"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors"]))
    except Exception as error:  # the hub's client raises many kinds: no network, no such repository, not allowed
        raise InputError(f"encoder {name}: expected to fetch it from Hugging Face, found {_reason(error)}") from None


def _patch_size(config) -> int:
    """Return the pixels of a patch's side from a transformers configuration, which may hold a pair."""
    size = config.patch_size
    return int(size if isinstance(size, int) else size[0])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_size(directory: Path, config, size: int) -> None:
    patch = _patch_size(config)
    if size < patch or size % patch:
        raise InputError(f"encoder {directory}: expected an image size of a multiple of {patch} px, found {size} px")


def _check_tensors(directory: Path, found: dict) -> None:
    """Raise InputError where tensors that features depend on are missing or of another shape."""
    unused = ("predictor.", "pooler.", "embeddings.mask_token")
    if missing := sorted(key for key in found["missing_keys"] if not key.startswith(unused)):
        raise InputError(
            f"encoder {directory}: the tensor {missing[0]} is missing in its safetensors ({len(missing)} in all)"
        )
    for key, held, wanted in sorted(found["mismatched_keys"]):
        raise InputError(f"encoder {directory}: {key}: expected shape {tuple(wanted)}, found {tuple(held)}")


def import_transformers():
    """Import transformers, which only these encoders need. Raises InputError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise InputError(
            "frozen encoder: expected the package transformers, found none: pip install transformers"
        ) from None
    return transformers


@contextmanager
def _quiet(transformers):
    """Switch off progress bars and logs of transformers within the context: errors are reported in one line."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
