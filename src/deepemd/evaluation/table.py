"""Evaluate a model on several data sets, ways and shots; every split is embedded once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from deepemd.data import Episodes, Images
from deepemd.embedding.splits import embed
from deepemd.errors import InputError
from deepemd.evaluation.evaluate import METHOD, Evaluation, evaluate
from deepemd.evaluation.methods import SFC, choose
from deepemd.model import DeepEMD

__all__ = ["evaluate_all"]


def evaluate_all(
    model: DeepEMD,
    splits: Mapping[str, Images],
    settings: Sequence[Episodes],
    *,
    method: str = METHOD,
    sfc: SFC | None = None,
    bf16: bool = False,
    cache: Path | None = None,
    left_out: Callable[[str, InputError], None] = lambda *_: None,
) -> list[Evaluation]:
    """Evaluate a model on every split with every setting of the episodes for which it has enough classes and images.

    Args:
        model: the model to evaluate.
        splits: name -> images.
        settings: settings of the episodes, all with the same seed.
        method, sfc, bf16, cache: as for :func:`deepemd.evaluation.evaluate.evaluate`.
        left_out: called before the work with each impossible combination, such as "glyphs:val, 50-way 1-shot", and the
            reason.

    Returns:
        The evaluations, split by split. After Ctrl-C the last one holds the episodes that are finished.

    Raises:
        InputError: a method is unknown, or no split has enough classes and images; raised before anything is embedded.
    """
    for episodes in settings:
        choose(method, model, n_shot=episodes.n_shot, sfc=sfc)
    evaluations: list[Evaluation] = []
    for name, possible in _possible(splits, settings, left_out).items():
        began = time.perf_counter()
        nodes = embed(model, splits[name], seed=possible[0].seed, bf16=bf16, cache=cache)
        embedding = time.perf_counter() - began
        for episodes in possible:
            one = evaluate(model, splits[name], episodes, method=method, sfc=sfc, nodes=nodes)
            evaluations.append(replace(one, seconds={**one.seconds, "embedding": embedding}))
            if not one.complete:
                return evaluations
            embedding = 0.0  # it is counted once
    return evaluations


def _possible(
    splits: Mapping[str, Images], settings: Sequence[Episodes], left_out: Callable[[str, InputError], None]
) -> dict[str, list[Episodes]]:
    """Return the possible settings of each split: name -> settings, without splits for which none is possible."""
    possible: dict[str, list[Episodes]] = {}
    refused: dict[str, InputError] = {}
    for (name, images), episodes in product(splits.items(), settings):
        try:
            episodes.sampler(images)
        except InputError as error:
            refused[f"{name}, {episodes.n_way}-way {episodes.n_shot}-shot"] = error
        else:
            possible.setdefault(name, []).append(episodes)
    if not possible:
        raise next(iter(refused.values()))
    for setting, reason in refused.items():
        left_out(setting, reason)
    return possible
