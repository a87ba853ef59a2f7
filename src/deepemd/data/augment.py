"""Augment whole batches of images on the training device."""

import torch
from torch import Tensor, nn

from deepemd.errors import InputError

__all__ = ["Augment"]


class Augment(nn.Module):
    """Random resized crops, flips and colour jitter for a whole batch.

    The random draws depend only on the seed that is passed with the batch; the global generator does not change.

    Args:
        size: side of the crops in pixels; None for no crops, if patches are cut afterwards.
        crop_scale: range of a crop's area, as a share of the image's.
        crop_ratio: range of a crop's width over its height.
        flip: whether half of the crops are mirrored. Turn it off if left and right matter, as in letters.
        jitter: how far brightness, contrast and saturation vary: 0 is not at all, 0.4 is strong.

    >>> images = torch.randint(0, 256, (8, 3, 92, 92), dtype=torch.uint8)
    >>> crops = Augment(84)(images, seed=3)
    >>> crops.shape, crops.dtype, torch.equal(crops, Augment(84)(images, seed=3))
    (torch.Size([8, 3, 84, 84]), torch.float32, True)
    """

    def __init__(
        self,
        size: int | None,
        *,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
        jitter: float = 0.0,
    ) -> None:
        import kornia.augmentation as K

        super().__init__()
        if not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise InputError(f"crop_scale is {crop_scale}: pass a range of shares, 0 < low <= high <= 1")
        if jitter < 0:
            raise InputError(f"jitter is {jitter}: pass 0 for none, up to about 0.4")
        steps: list[nn.Module] = []
        if size is not None:  # one resampling of the whole batch; cropping by slices would loop over images
            steps.append(
                K.RandomResizedCrop((size, size), scale=crop_scale, ratio=crop_ratio, cropping_mode="resample")
            )
        if flip:
            steps.append(K.RandomHorizontalFlip())
        if jitter:
            steps.append(K.ColorJitter(jitter, jitter, jitter, 0.0))
        self.steps = nn.Sequential(*steps)

    @torch.no_grad()
    def forward(self, images: Tensor, seed: int) -> Tensor:
        """Augment uint8 images (B, 3, H, W) to float32 in 0..1: (B, 3, size, size), or (B, 3, H, W) without a size."""
        scaled = images.float() / 255
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(seed)  # kornia draws on the CPU
            crops: Tensor = self.steps(scaled)  # (B, 3, H, W) -> (B, 3, size, size)
        return crops
