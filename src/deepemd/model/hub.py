"""Models by name: those that are installed with the package, and those of the Hugging Face Hub, which also go there.

The hub's library is loaded when it is first asked.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepemd.errors import InputError

__all__ = ["INSTALLED", "card", "find", "push"]

INSTALLED = Path(__file__).parents[1] / "weights"
"""Holds the folders of the models that come with the package."""

_FILES = (  # weights are safetensors only: a pickle is not even fetched
    *("config.json", "preprocessor_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"),
)
_NAME = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_OTHERS = ("transformers", "custom")  # encoders whose weights are another's


def find(name: "str | os.PathLike[str]", **download: Any) -> Path:
    """The folder of a model: a folder on the disk, what is installed, or what the hub has under this name.

    Args:
        name: a folder, the name of one in :data:`INSTALLED`, or ``"owner/name"``. A folder comes first.
        **download: ``revision``, ``token``, ``cache_dir``, ``force_download`` and ``local_files_only`` of
            ``huggingface_hub.snapshot_download``.

    Raises:
        InputError: neither a folder nor a name, or the hub cannot be reached and has not been asked for it before.

    >>> find("no-such-model")
    Traceback (most recent call last):
        ...
    deepemd.errors.InputError: no-such-model: no folder here, not installed (resnet12-miniimagenet is), no name of \
the hub, such as facebook/dinov2-small
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
            f"{name}: no folder here, not installed ({', '.join(installed)} is), no name of the hub, such as"
            " facebook/dinov2-small"
        )
    from huggingface_hub import snapshot_download

    with _explained(name, "fetched", "there is no such folder here, and it cannot be fetched from the hub"):
        return Path(snapshot_download(name, allow_patterns=list(_FILES), **download))


def push(save: Callable[[Path], object], text: str, repo_id: str, **settings: Any) -> str:
    """Upload a folder by huggingface_hub's mixin: the repository is made if need be, and all comes in one commit.

    The mixin is no base of the model, because importing it takes longer than importing all of the package: 0.15 s of a
    processor's time beside 0.08 (medians of 9, beyond torch and numba; huggingface_hub 2.4).

    Args:
        save: writes the files into a folder.
        text: the README.md beside them, see :func:`card`.
        repo_id: ``"owner/name"``.
        **settings: of ``ModelHubMixin.push_to_hub``: ``private``, ``token``, ``branch``, ``commit_message`` ...

    Returns:
        Where the commit is.

    Raises:
        InputError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import ModelCard, ModelHubMixin

    class Folder(ModelHubMixin):
        def _save_pretrained(self, save_directory: Path) -> None:
            save(save_directory)

        def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:  # noqa: ARG002 (the mixin's signature)
            return ModelCard(text)

    with _explained(repo_id, "uploaded", "cannot be uploaded to the hub"):
        return str(Folder().push_to_hub(repo_id, **settings))


def card(repo_id: str, config: Mapping[str, Any], license: str | None) -> str:
    """The README.md of a model: how to load it, and the licence of its weights.

    Raises:
        InputError: no licence, where the encoder's weights are another's.
    """
    encoder = config["backbone"]
    kind = encoder.get("model", {}).get("model_type") or encoder.get("class") or encoder["name"]
    if license is None and encoder["name"] in _OTHERS:
        raise InputError(
            f"license is not given: the weights began as another's ({kind}), whose licence goes with them; pass it as"
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
def _explained(name: str, done: str, failed: str) -> Iterator[None]:
    """What the hub's library raises, told in one line."""
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
            f"{name}: {failed}: the hub has no such name, or keeps it private; check it, or run `hf auth login`"
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError(f"{name}: {failed} without an account: run `hf auth login`, or pass token=") from error
    except Exception as error:  # of whichever HTTP client the library uses: they share no base
        cause = error.__cause__ or error
        first = str(cause).strip().splitlines()[0] if str(cause).strip() else "no message"
        remedy = (
            f"check the name and the network, or fetch it elsewhere (hf download {name} --local-dir FOLDER) and pass"
            " the folder"
            if done == "fetched"
            else "check the name, the network and your rights (hf auth whoami); save() keeps the model meanwhile"
        )
        raise InputError(f"{name}: {failed} ({type(cause).__name__}: {first}); {remedy}") from error
