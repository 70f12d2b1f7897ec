"""Encoders that stay as they are: patch features of a model in transformers' format, from a local directory."""

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

# model_type of config.json → class in transformers. Only these are built, so no code of a checkpoint is ever run.
KINDS = {
    "dinov2": "Dinov2Model",
    "dinov3_vit": "DINOv3ViTModel",
    "ijepa": "IJepaModel",
    "vjepa2": "VJEPA2Model",
}
# Mean and standard deviation of the three colours that all of them were trained with (ImageNet's).
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class FrozenEncoder(nn.Module):
    """Patch features of one image, without CLS and register tokens; always in evaluation mode and without gradients.

    tokens: patches of an image, row by row; width: numbers of each. V-JEPA 2 sees the still as often as its tubelet has
    frames (twice), and its features are layer-normed without weights, as V-JEPA 2-AC was trained (arXiv 2506.09985,
    section 3; `normalize_reps` in its configuration). The others end in their own layer norm.
    """

    frozen = True  # its weights stay in their own directory: checkpoints hold those of other modules only

    def __init__(self, kind: str, model: nn.Module, size: int):
        """model: of transformers' class KINDS[kind]. size: pixels of an image's side, a multiple of the patch."""
        super().__init__()
        config = model.config
        self.kind, self.size = kind, size
        self.tokens, self.width = (size // patch_size(config)) ** 2, config.hidden_size
        # The predictor of V-JEPA 2's pre-training has no use here.
        self.model = model.encoder if kind == "vjepa2" else model
        self._prefix = {"dinov2": 1, "dinov3_vit": 1 + getattr(config, "num_register_tokens", 0)}.get(kind, 0)
        self._tubelet = getattr(config, "tubelet_size", 1)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stays in evaluation mode, whatever the model around it does."""
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
    """The encoder in `directory` (config.json and *.safetensors) for images of size x size pixels, in float32.

    Raises InputError where the directory, its config.json or its safetensors file is missing, is of a kind that is not
    known, is truncated or lacks tensors, or where size is not a multiple of the encoder's patch.
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
                ignore_mismatched_sizes=True,  # they are named below
                output_loading_info=True,
            )
    except InputError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged file
        raise InputError(f"encoder {directory}: expected a model of type {kind}, found {_reason(error)}") from None
    _check_tensors(directory, found)
    return FrozenEncoder(kind, model, size)


def load_configured_encoder(config: FrozenEncoderConfig, directory: Path, size: int) -> FrozenEncoder:
    """The encoder that the checkpoint `directory` names, for images of size x size pixels.

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
    """model_type of an encoder's directory, one of KINDS. Raises InputError."""
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
    """The safetensors files of an encoder's directory, sorted by name. Raises InputError where there is none."""
    if files := sorted(directory.glob("*.safetensors")):
        return files
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    found = f"the pickle {pickles[0]}, which is never loaded" if pickles else "none"
    raise InputError(f"encoder {directory}: expected weights in *.safetensors, found {found}")


def weights_digest(directory: Path) -> str:
    """SHA-256 (hex) of an encoder's safetensors files, one after the other in the order of their names."""
    return sha256(*weight_files(directory))


def resolve_encoder(name_or_path: str | Path, allow_download: bool = False) -> Path:
    """Directory of an encoder. A path is taken as it is; the name of a Hugging Face repository (owner/name) is fetched
    when `allow_download`, which only the user's own word may set: config.json and safetensors, nothing else.

    Raises InputError where there is no such directory or repository, or a download would be needed and is not allowed.
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


def patch_size(config) -> int:
    """Pixels of a patch's side, from a transformers configuration; they may write a pair."""
    size = config.patch_size
    return int(size if isinstance(size, int) else size[0])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _check_size(directory: Path, config, size: int) -> None:
    patch = patch_size(config)
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
    """The package transformers, which only these encoders need. Raises InputError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise InputError(
            "frozen encoder: expected the package transformers, found none: pip install transformers"
        ) from None
    return transformers


@contextmanager
def _quiet(transformers):
    """No progress bars and reports of transformers: what is wrong is said in one line here."""
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
