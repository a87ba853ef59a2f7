"""Find models by name, installed or on the Hugging Face Hub, and upload models to the hub.

The hub's library is imported only when it is used.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepemd.errors import InputError
from deepemd.progress import Progress

__all__ = ["INSTALLED", "find_model", "model_card", "push"]

INSTALLED = Path(__file__).parents[1] / "weights"
"""The folder of the models that are installed with the package, each in its own folder."""

_FILES = (  # weights as safetensors only: pickles are not even downloaded
    *("config.json", "preprocessor_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
)
_DOWNLOAD_REMEDY = (
    "check the name and the network, or fetch it elsewhere (hf download {name} --local-dir FOLDER) and pass the folder"
)
_UPLOAD_REMEDY = "check the name, the network and your rights (hf auth whoami); meanwhile, save() writes it to a folder"
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_PRETRAINED = ("transformers", "custom")  # encoders that were pretrained by somebody else


def find_model(name: "str | os.PathLike[str]", **download: Any) -> Path:
    """Return the folder of a model; a model on the hub is downloaded.

    Args:
        name: a folder; else the name of a model in :data:`INSTALLED`; else ``"owner/name"`` on the hub.
        **download: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
            ``huggingface_hub.snapshot_download``.

    Raises:
        InputError: there is no such model, or the hub cannot be reached and the model was not downloaded before.

    >>> find_model("no-such-model")
    Traceback (most recent call last):
        ...
    deepemd.errors.InputError: no-such-model: neither a folder here, nor installed (resnet12-miniimagenet is), nor a \
name on the hub, such as facebook/dinov2-small
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    installed = sorted(folder.name for folder in INSTALLED.glob("*/"))
    if str(name) in installed:
        return INSTALLED / name
    if not isinstance(name, str):
        return path
    if path.is_file():
        raise InputError(f"{name}: a file; pass the folder that holds the model")
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name}: neither a folder here, nor installed ({', '.join(installed)} is), nor a name on the hub,"
            " such as facebook/dinov2-small"
        )
    from huggingface_hub import snapshot_download

    failure = "there is no such folder here, and it cannot be fetched from the hub"
    shown = Progress(f"fetching {name}", bar=False)  # on a terminal the hub's library shows its own bars
    with _explain_hub_errors(name, failure, _DOWNLOAD_REMEDY.format(name=name)), shown:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), **download))


def push(save: Callable[[Path], object], text: str, repo_id: str, **settings: Any) -> str:
    """Upload a folder in one commit, by huggingface_hub's mixin; the repository is created if needed.

    The model does not inherit from the mixin, because importing it takes longer than importing all of this package:
    0.15 s of processor time against 0.08 s (medians of 9, beyond torch and numba; huggingface_hub 2.4).

    Args:
        save: function that writes the files into a folder.
        text: the content of README.md, see :func:`model_card`.
        repo_id: ``"owner/name"``.
        **settings: arguments of ``ModelHubMixin.push_to_hub``: ``private``, ``token``, ``branch``, ``commit_message``
            and others.

    Returns:
        The address of the commit.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import ModelCard, ModelHubMixin

    class Folder(ModelHubMixin):
        def _save_pretrained(self, save_directory: Path) -> None:
            save(save_directory)

        def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:  # noqa: ARG002 (the mixin's signature)
            return ModelCard(text)

    with _explain_hub_errors(repo_id, "cannot be uploaded to the hub", _UPLOAD_REMEDY):
        return str(Folder().push_to_hub(repo_id, **settings))


def model_card(repo_id: str, config: Mapping[str, Any], license: str | None) -> str:
    """Return the README.md of a model: how to load it, and the licence of its weights.

    Raises:
        InputError: the licence is missing, although the encoder was pretrained by somebody else.
    """
    encoder = config["backbone"]
    kind = encoder.get("model", {}).get("model_type") or encoder.get("class") or encoder["name"]
    if license is None and encoder["name"] in _PRETRAINED:
        raise InputError(
            f"license is missing: somebody else pretrained the encoder ({kind}), and that licence applies; pass it as"
            " the hub spells it, such as license='apache-2.0'"
        )
    return f"""---
license: {license or "apache-2.0"}
library_name: deepemd
pipeline_tag: image-classification
tags:
- few-shot-learning
- earth-movers-distance
---

# {repo_id.rpartition("/")[2]}

A few-shot image classifier, DeepEMD: it compares two images by the Earth Mover's Distance between their parts.
Encoder {kind}, regions {config["regions"]["name"]}, images of {config["image_size"]} x {config["image_size"]} pixels.

```python
from deepemd import DeepEMD, FewShotClassifier

model = DeepEMD.from_pretrained("{repo_id}")  # pip install deepemd
classifier = FewShotClassifier(backbone="{repo_id}").fit(photos, labels)
```
"""


@contextmanager
def _explain_hub_errors(name: str, failure: str, remedy: str) -> Iterator[None]:
    """Turn errors of the hub's library into an InputError with a message of one line."""
    from huggingface_hub import errors

    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{name}: its owner asks for consent: give it at https://huggingface.co/{name}, then run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(f"{name}: the hub has no such revision of it; check revision=") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: {failure}: the hub has no such name, or it is private; check the name, or run `hf auth login`"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"{name}: {failure} without an account: run `hf auth login`, or pass token=") from error
    except Exception as error:  # from the HTTP client of the library; clients share no base class
        cause = error.__cause__ or error
        first = str(cause).strip().splitlines()[0] if str(cause).strip() else "no message"
        raise InputError(f"{name}: {failure} ({type(cause).__name__}: {first}); {remedy}") from error
