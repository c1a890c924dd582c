"""A run is a folder that explains itself: what was asked, with which versions, and everything that came of it.

```
RUN/
  run.json                     name, creation time, versions
  recipe.yaml                  the resolved recipe; `sfumato run RUN/recipe.yaml run=ELSEWHERE` repeats it
  normalization.json           mean and deviation that rewards with `normalize: base` have on the base model
  training/NAME/               one training ("tuned", "kl", ...)
    metrics.jsonl              a record per update
    checkpoint-000040/         tuned weights as below, and the trainer's state
    pytorch_lora_weights.safetensors, or unet/ or transformer/ if the whole denoiser was trained
  evaluation/
    images.jsonl               a record per image: point, prompt, seed, file and its hash, scores, labels, call
    rows-PROCESS.jsonl         the same while a sweep is under way, one file per process
    sweep.jsonl                a record per micro-batch that was sampled: when, by whom, why
    points.json                what every point is, with which weights and on what it was sampled
    images/POINT/*.png
    draws/                     what the base model drew, for best-of-n; in a suite beside its cells; may be deleted
    features.safetensors       features of all images, in the order of images.jsonl
    frontier.json              every operating point with its metrics and intervals
    diagnosis.json             whether the model is hacked
  report.html
```

Only this folder passes between the half that computes and the half that people look at.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sfumato._version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "numpy")
TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}(\..*)?")
"""Names of the files that `atomic_path` yields."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and replaces `path` in one step.

    A crash, a kill or a full disk leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # some writers, safetensors for one, make files that only their owner can read
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Force a file or folder out to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): repair it, or delete it and repeat what wrote it") from None


def append_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Append records, one JSON object a line; a last line that a kill or a full disk cut short is removed first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - 1))
        if end and file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; a last line that a kill cut short is left out.

    Raises:
        ValueError: another line is damaged.
    """
    path, records = Path(path), []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1] if path.exists() else [], start=1):
        try:
            records += [json.loads(line)] if line else []
        except ValueError as error:
            raise ValueError(f"line {number} of {path} is damaged ({error}): repair or delete that line") from None
    return records


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Replace a JSONL file in one step."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    found = {name: metadata.version(name) for name in PACKAGES}
    return {"sfumato": __version__, "python": platform.python_version(), **found}


@dataclass(frozen=True)
class Run:
    """A run folder. `Run.create` starts or continues one, `Run.load` opens a finished one."""

    path: Path

    @classmethod
    def create(cls, path: str | Path, recipe: dict[str, Any], name: str, harmless: Collection[str] = ()) -> Run:
        """Start a run, or continue the one at `path`.

        Args:
            recipe: the resolved recipe.
            name: of the run.
            harmless: dotted keys that may differ, with all below them, from the recipe in the folder, because nothing
                done becomes wrong by that; the recipe in the folder is brought up to date.

        Raises:
            ValueError: the folder holds a run of a different recipe.
        """
        run = cls(Path(path))
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
        recipe = yaml.safe_load(text)  # as it will be read back: a tuple is a list there
        if run.recipe_path.exists():
            changed = set(_changes(run.recipe, recipe))
            if harmful := sorted(key for key in changed if not any(f"{key}.".startswith(f"{h}.") for h in harmless)):
                raise ValueError(
                    f"{run.path} holds a run of another recipe (different: {', '.join(harmful)}). "
                    "Choose a new folder with run=DIR, or repeat the call with the recipe that is in it."
                )
            if not changed:
                return run
        else:
            created = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(run.path / "run.json", {"name": name, "created": created, "versions": versions()})
        write_text(run.recipe_path, text)
        return run

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Open an existing run.

        Raises:
            FileNotFoundError: there is no run at `path`.
        """
        run = cls(Path(path))
        if not (run.path / "run.json").exists():
            raise FileNotFoundError(f"{run.path} is not a run folder: it has no run.json")
        return run

    @property
    def info(self) -> dict[str, Any]:
        return read_json(self.path / "run.json")

    @property
    def recipe_path(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def recipe(self) -> dict[str, Any]:
        return yaml.safe_load(self.recipe_path.read_text(encoding="utf-8"))

    @property
    def normalization(self) -> Path:
        return self.path / "normalization.json"

    @property
    def trainings(self) -> list[str]:
        """Names of the trainings in the run: "tuned" first, the others in alphabetical order."""
        folder = self.path / "training"
        found = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.exists() else []
        return sorted(found, key=lambda name: name != "tuned")

    def training(self, name: str = "tuned") -> Path:
        return self.path / "training" / name

    def has_training(self, name: str) -> bool:
        """Whether a training has begun to leave results."""
        return any(self.training(name).glob("checkpoint-*"))

    def training_metrics(self, name: str = "tuned") -> list[dict[str, Any]]:
        return read_jsonl(self.training(name) / "metrics.jsonl")

    def early_result(self, name: str = "tuned") -> int | None:
        """The update whose weights are a training's result because the later ones went too far; None if it is the last
        one."""
        records = self.training_metrics(name)
        watch = records[-1].get("watch") if records else None
        return watch["good"] if watch and watch["action"] != "warn" else None

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    def images(self) -> list[dict[str, Any]]:
        """One record per evaluated image; of two for the same image the later written one."""
        files = [self.evaluation / "images.jsonl", *sorted(self.evaluation.glob("rows-*.jsonl"))]
        rows = [row for file in files for row in read_jsonl(file)]
        return list({(row["point"], row["prompt"], row["seed"]): row for row in rows}.values())

    def features(self, name: str = "features") -> NDArray[np.float32]:
        """Features (N, D) of the evaluated images, rows in the order of `images()`.

        Args:
            name: "features", in which diversity is measured, or the name of one of the recipe's `further_features`.

        Raises:
            FileNotFoundError: the run was not evaluated yet, or its pictures have changed since.
            KeyError: there are no features of that name.
        """
        from safetensors import safe_open

        path = self.evaluation / "features.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{self.path} has no features yet: run `sfumato evaluate {self.path}` first")
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}).get("table") != self._table_hash():
                raise FileNotFoundError(
                    f"the features of {self.path} are those of other pictures: run `sfumato evaluate {self.path}` again"
                )
            if name not in file.keys():  # noqa: SIM118  it is no mapping
                raise KeyError(name)
            return file.get_tensor(name)

    def write_features(self, features: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep features (N, D) by name, rows in the order of `images()`; they hold for just these pictures."""
        from safetensors.numpy import save_file

        with atomic_path(self.evaluation / "features.safetensors") as temporary:
            save_file(dict(features), temporary, metadata={"table": self._table_hash()})

    def _table_hash(self) -> str:
        """Names the evaluated pictures and their order."""
        keys = [[row.get(key) for key in ("point", "prompt", "seed", "sha256")] for row in self.images()]
        return hashlib.sha256(json.dumps(keys).encode()).hexdigest()

    def frontier(self) -> dict[str, Any]:
        """The measured operating points.

        Raises:
            FileNotFoundError: the run was not evaluated yet.
        """
        path = self.evaluation / "frontier.json"
        if not path.exists():
            raise FileNotFoundError(f"{self.path} has no evaluation yet: run `sfumato evaluate {self.path}` first")
        return read_json(path)

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def reward_parts(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of a recipe's reward, each with its `name`, however the recipe writes them."""
    section = recipe.get("reward") or []
    parts = section if isinstance(section, list) else [section]
    return [part if isinstance(part, dict) else {"name": part} for part in parts]


def _changes(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys at which two recipes differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old.keys() | new.keys():
            yield from _changes(old.get(key), new.get(key), f"{prefix}{key}.")
    elif old != new:
        yield prefix.rstrip(".")
