"""Features on disk by content, shared between runs and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sfumato.runs import atomic_path

MANY = 128
SMALL = 4 * 2**20
"""More than `MANY` shards below `SMALL` bytes are merged into one."""


class FeatureCache:
    """Features by content: one row (D,) per image, in safetensors shards of one folder per extractor.

    Any number of processes may read and write at once: a shard appears whole or not at all, and is never changed. Each
    row has its checksum, so that a damaged one counts as absent.

    Args:
        folder: created at the first write. It may be shared between runs and processes, and deleted at any time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._shards: dict[Path, dict[str, str]] = {}

    def find(self, fingerprint: str, keys: Collection[str]) -> dict[str, torch.Tensor]:
        """The rows (D,), float32, that are known among the hashes of images asked for."""
        found: dict[str, torch.Tensor] = {}
        for shard, checksums in self._refresh(fingerprint).items():
            if wanted := (checksums.keys() & set(keys)) - found.keys():
                found |= _rows(shard, {key: checksums[key] for key in wanted})
        return found

    def write(self, fingerprint: str, rows: dict[str, torch.Tensor]) -> None:
        """Add rows (D,) by image hash, as one new shard.

        Raises:
            ValueError: a row is not one finite vector.
        """
        for key, row in rows.items():
            if row.ndim != 1 or not row.isfinite().all():
                raise ValueError(f"features of image {key[:12]} are not one finite vector: they are not cached")
        self._write(self.folder / fingerprint, {key: row.float().contiguous() for key, row in rows.items()})

    def _write(self, folder: Path, rows: dict[str, torch.Tensor]) -> Path:
        name = hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()
        shard = folder / f"{name}.safetensors"
        checksums = {key: _checksum(row) for key, row in rows.items()}
        with atomic_path(shard) as temporary:
            save_file(rows, temporary, metadata={"sha256": json.dumps(checksums)})
        self._shards[shard] = checksums
        return shard

    def _refresh(self, fingerprint: str) -> dict[Path, dict[str, str]]:
        """Checksums by image hash of every shard that lies there now."""
        folder = self.folder / fingerprint
        present = sorted(folder.glob("[!.]*.safetensors"))
        for shard in present:
            if shard not in self._shards:
                self._shards[shard] = _checksums(shard)
        small = {shard for shard in present if self._shards[shard] and _size(shard) < SMALL}
        if len(small) > MANY:
            present = [shard for shard in present if shard not in small] + [self._merge(folder, sorted(small))]
        return {shard: self._shards[shard] for shard in present}

    def _merge(self, folder: Path, shards: list[Path]) -> Path:
        """One shard of all intact rows of many, which are removed once it lies on the disk."""
        rows: dict[str, torch.Tensor] = {}
        taken: list[Path] = []
        for shard in shards:
            found = _rows(shard, self._shards[shard])
            rows |= found
            if found.keys() == self._shards[shard].keys():
                taken.append(shard)
        merged = self._write(folder, rows)
        for shard in taken:
            if shard != merged:
                shard.unlink(missing_ok=True)
        return merged


def _checksum(row: torch.Tensor) -> str:
    return hashlib.sha256(row.numpy().data).hexdigest()


def _checksums(shard: Path) -> dict[str, str]:
    """Checksums by image hash, as a shard holds them; none if it cannot be read."""
    try:
        with safe_open(shard, framework="pt") as file:
            return json.loads((file.metadata() or {}).get("sha256", "{}"))
    except (SafetensorError, OSError, RuntimeError, ValueError):
        return {}


def _rows(shard: Path, checksums: dict[str, str]) -> dict[str, torch.Tensor]:
    """The rows of a shard whose checksums are these; none if another process has merged it away meanwhile."""
    try:
        with safe_open(shard, framework="pt") as file:
            rows = {key: file.get_tensor(key) for key in checksums}
    except (SafetensorError, OSError, RuntimeError):  # torch opens the file once more, and it may be gone by then
        return {}
    return {key: row.clone() for key, row in rows.items() if _checksum(row) == checksums[key]}


def _size(path: Path) -> int:
    """Bytes of a file; 0 if another process has just removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
