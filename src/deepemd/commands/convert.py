"""``deepemd convert``: convert a checkpoint of the paper's authors to a saved model."""

from pathlib import Path

from deepemd.errors import InputError
from deepemd.progress import Progress
from deepemd.results import output_lock

__all__ = ["convert"]


def convert(checkpoint: Path, out: Path, regions: str = "fcn", force: bool = False) -> None:
    """Convert a checkpoint of the paper's ResNet-12, such as the authors published, to a saved model.

    The checkpoint is a .pth or .pt file of torch.save, or a .safetensors file. The weights are under "params",
    "state_dict" or "model", or make up the whole file. Nothing in the file is executed. Afterwards, for instance, run
    deepemd evaluate OUT miniimagenet --split val

    Args:
        checkpoint: file to convert.
        out: folder for model.safetensors and config.json.
        regions: how an image becomes nodes (a checkpoint does not record it): fcn, fcn:2,1 (with the paper's pyramid),
            grid:3,2 or sampling:9.
        force: replace an existing model.
    """
    from deepemd.model import checkpoints
    from deepemd.model.folder import CONFIG_FILE, WEIGHTS_FILE
    from deepemd.nodes import parse_regions

    existing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if (out / name).exists()]
    if existing and not force:
        raise InputError(f"out: {out} already holds {existing[0]}: pass --force to replace it, or another folder")
    with output_lock(out / CONFIG_FILE, option="out"), Progress(f"converting {checkpoint.name}"):
        model, left_out, absent = checkpoints.convert(checkpoint, parse_regions(regions))
        model.save(out)
    for name in left_out:
        print(f"left out: {name}")
    if absent:
        print(f"absent, set to 0: {len(absent)} counters num_batches_tracked, which nothing uses")
    print(f"model in {out}")
