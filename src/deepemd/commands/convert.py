"""``deepemd convert``: a checkpoint of the authors becomes a saved model."""

from pathlib import Path

from deepemd.errors import InputError

__all__ = ["convert"]


def convert(checkpoint: Path, out: Path, pyramid: tuple[int, ...] = (), force: bool = False) -> None:
    """Make a saved model of a checkpoint of the paper's ResNet-12, such as the authors published.

    Reads .pth and .pt files of torch.save and .safetensors files; the weights lie under "params", "state_dict" or
    "model", or are the whole file. Nothing in the file is executed. Then, for instance: deepemd evaluate OUT
    miniimagenet --split val

    Args:
        checkpoint: the file.
        out: folder for model.safetensors and config.json.
        pyramid: coarser maps that add nodes, [2,1] for the paper's best; empty for none.
        force: overwrite the model that is there.
    """
    from deepemd import convert as conversion
    from deepemd.model import CONFIG_FILE, WEIGHTS_FILE
    from deepemd.nodes import FCN

    there = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (out / name).exists()]
    if there and not force:
        raise InputError(f"{out} holds {there[0]} already: pass --force to overwrite it, or another folder")
    model, left_out, absent = conversion.convert(checkpoint, FCN(tuple(pyramid)))
    for name in left_out:
        print(f"left out: {name}")
    if absent:
        print(f"absent, set to 0: {len(absent)} counters num_batches_tracked, which nothing reads")
    print(f"model in {model.save(out)}")
