"""From a recipe to a reward: reads the pairs, refuses what cannot work before the work starts, splits, and trains."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState

from sfumato.config.preference import RECIPE, PreferenceRecipe
from sfumato.images import image_size
from sfumato.preferences.check import what_labels_lack
from sfumato.preferences.pairs import Pair, load_pairs
from sfumato.preferences.split import leaks, split_pairs
from sfumato.preferences.train import begun, train_preference
from sfumato.runs import write_text


def learn_preference(recipe: PreferenceRecipe) -> dict[str, Any]:
    """Learn the reward of a recipe; see `train_preference` for what it leaves in its folder and what it returns.

    Raises:
        FileNotFoundError: a file of pairs is not there.
        ValueError: the model's folder holds none, the pairs cannot be learned from, or the folder holds a reward of
            another recipe.
        ImportError: Parquet needs an extra.
    """
    model = Path(recipe.model)
    if model.is_dir() and not any((model / name).exists() for name in ("config.json", "preference.json")):
        raise ValueError(f"{model} has no config.json: give the folder or hub id of a CLIP or SigLIP of transformers")
    pairs, held_out, test = read_parts(recipe)
    _keep_recipe(recipe)
    if PartialState().is_main_process and (found := leaks(pairs, [*held_out, *test])):
        print(f"warning: {found}", file=sys.stderr)
    return train_preference(
        recipe.model, pairs, held_out, recipe.folder, recipe.training, test=test, processor=recipe.processor
    )


def read_parts(recipe: PreferenceRecipe) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Pairs to learn from, held-out pairs, and pairs to report on, if the recipe has them; raises as above."""
    pairs = _read(recipe, recipe.pairs)
    if isinstance(recipe.held_out, float):
        pairs, held_out = split_pairs(pairs, recipe.held_out, recipe.training.seed)
        if all(pair.label == 0.5 for pair in held_out):
            raise ValueError(f"all {len(held_out)} pairs that were held out are ties: give a larger share, or a file")
    else:
        held_out = _read(recipe, recipe.held_out)
    return pairs, held_out, _read(recipe, recipe.test) if recipe.test else []


def _read(recipe: PreferenceRecipe, files: Sequence[str]) -> list[Pair]:
    """The pairs of some files, checked; the first process writes out images that lie in Parquet."""
    with PartialState(cpu=not torch.accelerator.is_available()).local_main_process_first():
        found = [pair for file in files for pair in load_pairs(file, recipe.images)]
    where = ", ".join(files)
    if not found:
        raise ValueError(f"there are no pairs in {where}")
    if lacking := what_labels_lack(Counter(float(pair.label) for pair in found), recipe.ordered):
        raise ValueError(f"{where}: {lacking}")
    _check_images(dict.fromkeys(image for pair in found for image in (pair.image_0, pair.image_1)), where)
    return found


def _check_images(paths: dict[str, None], where: str) -> None:
    """Raise ValueError unless all files are there and begin like images."""
    wrong = []
    for path in paths:
        try:
            image_size(path)
        except (OSError, ValueError) as error:
            wrong.append(f"{path} ({'not there' if isinstance(error, FileNotFoundError) else 'no image'})")
    if wrong:
        raise ValueError(
            f"{where}: {len(wrong)} of {len(paths)} images cannot be read, such as {', '.join(wrong[:3])}: see "
            "`sfumato preference check`"
        )


def _keep_recipe(recipe: PreferenceRecipe) -> None:
    """Write the recipe into the folder, or see that it is the one in there.

    Raises:
        ValueError: it is another one.
    """
    path, asked = Path(recipe.folder) / RECIPE, recipe.resolved()
    if not (path.exists() and begun(path.parent)):
        write_text(path, yaml.safe_dump(asked, sort_keys=False, allow_unicode=True))
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    if changed := sorted(key for key in asked if before.get(key) != asked[key]):
        raise ValueError(
            f"{recipe.folder} holds a reward of another recipe (different: {', '.join(changed)}): choose another "
            "folder, or repeat the call with the recipe that is in it"
        )
