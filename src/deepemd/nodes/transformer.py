"""Encoders of the library `transformers` that return feature maps: DINOv2, DINOv3, ViT, ConvNeXt and ResNet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepemd.checks import whole_number
from deepemd.errors import InputError
from deepemd.json_files import read_json

__all__ = ["FAMILIES", "Transformer", "transformer"]

FAMILIES = (  # the model types of transformers that are tested
    "convnext",
    "convnextv2",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_convnext",
    "dinov3_vit",
    "resnet",
    "vit",
)
_LEFT_OUT = (
    "architectures",
    "auto_map",
    "id2label",
    "label2id",
    "_name_or_path",
)  # keys of its config about heads or code
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


class Transformer(nn.Module):
    """An encoder of `transformers`, with random weights if built from a configuration; see :func:`transformer`.

    Args:
        model: the contents of the model's own config.json, with its ``model_type``.
        side: average maps of more than side x side cells to that size; None leaves them as they are.
        version: the version of `transformers` that saved the weights, for messages, because some names change.
        module: the model itself, if it is already built.

    Raises:
        InputError: the model type is not in :data:`FAMILIES`, a setting is out of range, or `transformers` is missing.
    """

    def __init__(
        self,
        model: dict[str, Any],
        side: int | None = None,
        version: str | None = None,
        *,
        module: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if side is not None:
            side = whole_number("side", side, hint="tokens are averaged to side x side; None uses all")
        settings = _settings(model)
        self.model: Any = _build(settings, model) if module is None else module
        self.channels = int(settings.hidden_sizes[-1] if hasattr(settings, "hidden_sizes") else settings.hidden_size)
        kept = {key: value for key, value in model.items() if key not in _LEFT_OUT}
        version = version or str(_library().__version__)
        self.config: dict[str, Any] = {"name": "transformers", "model": kept, "side": side, "version": version}

    def forward(self, images: Tensor) -> Tensor:
        """Encode (B, 3, H, W) images into (B, C, h, w) maps, h and w at most `side`."""
        settings, (height, width) = self.model.config, images.shape[-2:]
        stride = _stride(settings)
        h, w = height // stride, width // stride
        if min(h, w) < 1:
            raise InputError(
                f"images of {height} x {width} are too small for {settings.model_type}, which makes one token of"
                f" {stride} x {stride} pixels: enlarge image_size"
            )
        positions = {"interpolate_pos_encoding": True} if settings.model_type == "vit" else {}
        maps: Tensor = self.model(images, **positions).last_hidden_state  # (B, C, h, w), or tokens (B, N, C)
        if maps.ndim == 3:
            maps = _as_map(maps, h, w, 1 + getattr(settings, "num_register_tokens", 0))  # -> (B, C, h, w)
        side = self.config["side"] or max(maps.shape[-2:])
        if max(maps.shape[-2:]) > side:
            maps = F.adaptive_avg_pool2d(maps, (min(maps.shape[-2], side), min(maps.shape[-1], side)))
        return maps


def transformer(folder: str | Path, side: int | None = 7) -> Transformer:
    """Load an encoder that `transformers` saved: a folder with config.json and weights as safetensors.

    Patch tokens are the cells of the map, row by row; the class token and the registers are dropped. The maps are the
    model's last hidden state: after the last layer norm for DINOv2, DINOv3 and ViT, before it for ConvNeXt.

    Args:
        folder: the folder that ``save_pretrained`` wrote or ``hf download`` fetched. Its model type must be among
            :data:`FAMILIES`. A pickle (pytorch_model.bin) is never read, nor is code from the folder.
        side: average maps of more than side x side cells to that size (adaptive average), because the time of exact
            transport grows faster than the square of the number of nodes. If `side` does not divide the map, as 7 does
            not divide 16, neighbouring cells share a row of tokens. None keeps all tokens.

    Returns:
        The encoder in evaluation mode, float32.

    Raises:
        InputError: `transformers` is missing; the model type is not in :data:`FAMILIES`; or the weights are missing,
            damaged or of another architecture.

    Source: Oquab et al., DINOv2 (TMLR 2024); Siméoni et al., DINOv3 (2025); Liu et al., A ConvNet for the 2020s
    (CVPR 2022); Dosovitskiy et al., An Image is Worth 16x16 Words (ICLR 2021).
    """
    folder = Path(folder)
    model = read_json(folder / "config.json", remedy="fetch the model again")
    settings = _settings(model)
    if not any((folder / name).is_file() for name in _WEIGHTS):
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"only {', '.join(pickles)}, a pickle, which could run code and is not read" if pickles else "nothing"
        raise InputError(f"{folder}: no weights, {_WEIGHTS[0]} is expected and {found} is there; convert or fetch them")
    return Transformer(model, side, module=_weighted(folder, settings)).eval()


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"this encoder needs the library transformers ({error}): pip install 'deepemd[transformers]'"
        ) from error
    return transformers


def _settings(model: Any) -> Any:
    """Return the library's own object for a config.json; no code from the folder is run."""
    kind = model.get("model_type") if isinstance(model, dict) else None
    if kind not in FAMILIES:
        raise InputError(
            f"model_type is {kind!r}: choose one of {', '.join(FAMILIES)}; for another model pass, instead of its name,"
            " a module that returns (B, C, h, w) maps"
        )
    library = _library()
    try:
        settings = library.AutoConfig.for_model(
            kind, **{key: value for key, value in model.items() if key not in (*_LEFT_OUT, "model_type")}
        )
        stride = _stride(settings)
    except Exception as error:  # the library's checks raise errors without a common base
        raise InputError(
            f"config.json of {kind} is not understood by transformers {library.__version__} ({_first_line(error)});"
            " fetch it again, or update transformers"
        ) from error
    if getattr(settings, "num_channels", 3) != 3 or stride < 1:
        raise InputError(f"config.json of {kind}: {settings.num_channels} channels, stride {stride}: RGB is needed")
    return settings


def _options(kind: str) -> dict[str, Any]:
    """Return options that omit the pooled vector, which is unused and without weights in many checkpoints."""
    return {"add_pooling_layer": False} if kind == "vit" else {}


def _build(settings: Any, model: dict[str, Any]) -> nn.Module:
    try:
        built: nn.Module = _library().AutoModel.from_config(
            settings, trust_remote_code=False, dtype=torch.float32, **_options(settings.model_type)
        )
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise InputError(f"config.json describes no model that can be built ({error}): {model}") from error
    return built


def _weighted(folder: Path, settings: Any) -> nn.Module:
    """Return the model with the folder's weights, which must be complete."""
    from safetensors import SafetensorError

    with _quiet():
        try:
            module, report = _library().AutoModel.from_pretrained(
                folder,
                config=settings,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **_options(settings.model_type),
            )
        except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}: the weights are damaged, truncated or of another architecture than config.json says"
                f" ({_first_line(error)}); fetch the model again"
            ) from error
    missing = sorted(name for name in report["missing_keys"] if "mask_token" not in name)  # for pretraining only
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} weights are not in the file, {missing[0]} the first: it is of another"
            f" architecture than {settings.model_type}; fetch the model again"
        )
    encoder: nn.Module = module
    return encoder


def _stride(settings: Any) -> int:
    """Return the side of the square of pixels that becomes one token."""
    patch = getattr(settings, "patch_size", 4)
    patch = patch if isinstance(patch, int) else max(patch)
    return patch * 2 ** (len(settings.depths) - 1) if hasattr(settings, "depths") else patch


def _as_map(tokens: Tensor, h: int, w: int, special: int) -> Tensor:
    """Turn tokens (B, special + h * w, C) into a map (B, C, h, w), without the class token and the registers."""
    if tokens.shape[1] != special + h * w:
        raise InputError(f"the encoder gave {tokens.shape[1]} tokens, {special} + {h} x {w} were expected")
    maps: Tensor = tokens[:, special:].transpose(1, 2).unflatten(2, (h, w))
    return maps.contiguous()


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the library's progress bar and its table of unused heads; errors are raised anyway."""
    log = _library().utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
