"""Prepare data sets, decode their images, and draw episodes from them."""

from deepemd.data.catalog import DATASETS, default_root, load, prepare, prepared
from deepemd.data.decoding import decode
from deepemd.data.episodes import Episode, Episodes, EpisodeSampler
from deepemd.data.images import Fingerprint, Images
from deepemd.data.store import Store, verify

__all__ = [
    "DATASETS",
    "Episode",
    "EpisodeSampler",
    "Episodes",
    "Fingerprint",
    "Images",
    "Store",
    "decode",
    "default_root",
    "load",
    "prepare",
    "prepared",
    "verify",
]
