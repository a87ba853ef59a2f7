"""``deepemd convert``: a checkpoint of the authors becomes a saved model."""

from pathlib import Path

from deepemd.errors import InputError

__all__ = ["convert"]


def convert(checkpoint: Path, out: Path, regions: str = "fcn", force: bool = False) -> None:
    """Make a saved model of a checkpoint of the paper's ResNet-12, such as the authors published.

    Reads .pth and .pt files of torch.save and .safetensors files; the weights lie under "params", "state_dict" or
    "model", or are the whole file. Nothing in the file is executed. Then, for instance: deepemd evaluate OUT
    miniimagenet --split val

    Args:
        checkpoint: the file.
        out: folder for model.safetensors and config.json.
        regions: how the model makes nodes of an image, which the checkpoint does not know: fcn, fcn:2,1 (with the
            paper's pyramid), grid:3,2 or sampling:9.
        force: overwrite the model that is there.
    """
    from deepemd.model import checkpoints
    from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE
    from deepemd.nodes import parse_regions

    there = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (out / name).exists()]
    if there and not force:
        raise InputError(f"{out} holds {there[0]} already: pass --force to overwrite it, or another folder")
    model, left_out, absent = checkpoints.convert(checkpoint, parse_regions(regions))
    for name in left_out:
        print(f"left out: {name}")
    if absent:
        print(f"absent, set to 0: {len(absent)} counters num_batches_tracked, which nothing reads")
    print(f"model in {model.save(out)}")
