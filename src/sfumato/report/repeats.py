"""Near-duplicates: how much each operating point repeats itself, its closest pairs, and every image's neighbours.

Two images are near-duplicates if their features are closer than the base's closest pairs: than the first percentile of
the cosine distances between two of the base's images of the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.report.images import Strips

PERCENTILE = 1.0
PAIRS = 12  # closest pairs that a point lists
NEIGHBOURS = 4  # of an image, of each kind
CHUNK = 1024  # rows of a block of distances
FAR = np.float32(9.0)  # beyond any cosine distance


@dataclass(frozen=True)
class Block:
    """The images of one operating point.

    Attributes:
        features: (N, D) float32, rows of length 1.
        prompts: (N,) number of the prompt.
        tiles: (N,) number of the tile on the page, prompt x most seeds + seed; -1 if it is not shown.
    """

    features: np.ndarray
    prompts: np.ndarray
    tiles: np.ndarray


def find_repeats(
    records: list[dict[str, Any]], features: np.ndarray, strips: Strips, points: list[str]
) -> dict[str, Any]:
    """Near-duplicates of every operating point on the main prompts.

    Args:
        records: of images.jsonl.
        features: (N, D), a row per record.
        points: names, in the page's order.

    Returns:
        What the page's script reads: "threshold"; "seeds", the number of tiles per prompt that a tile's number counts
        by; "points", one entry each; all empty without images of the base.
    """
    blocks = _blocks(records, features, strips)
    if "base" not in blocks:
        return {}
    threshold = _closest_of(blocks["base"])
    found = [
        {"name": name} | _describe(blocks[name], blocks["base"], threshold, _tiles(strips))
        for name in points
        if name in blocks
    ]
    return {"threshold": threshold, "seeds": strips.shown, "points": found}


def _tiles(strips: Strips) -> int:
    return strips.shown * len(strips.prompts)


def _blocks(records: list[dict[str, Any]], features: np.ndarray, strips: Strips) -> dict[str, Block]:
    number = {prompt: i for i, prompt in enumerate(dict.fromkeys([*strips.prompts, *(r["prompt"] for r in records)]))}
    place = {
        (p, seed): number[p] * strips.shown + i for p, seeds in strips.seeds.items() for i, seed in enumerate(seeds)
    }
    rows: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        if record.get("group", "main") == "main":
            rows.setdefault(record["point"], []).append(i)
    blocks = {}
    for point, own in rows.items():
        taken = np.asarray(features[own], dtype=np.float32)
        taken = taken / np.maximum(np.linalg.norm(taken, axis=1, keepdims=True), np.float32(1e-12))
        prompts = np.array([number[records[i]["prompt"]] for i in own])
        tiles = np.array([place.get((records[i]["prompt"], records[i]["seed"]), -1) for i in own])
        blocks[point] = Block(taken, prompts, tiles)
    return blocks


def _closest_of(base: Block) -> float:
    """The first percentile of the distances within the base's prompts."""
    found = []
    for prompt in np.unique(base.prompts):
        own = base.features[base.prompts == prompt]
        found.append(_distances(own, own)[np.triu_indices(len(own), 1)])
    distances = np.concatenate(found)
    return float(np.percentile(distances, PERCENTILE)) if len(distances) else 0.0


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(1 - a @ b.T, 0)


def _describe(own: Block, base: Block, threshold: float, tiles: int) -> dict[str, Any]:
    """One point: shares of repeated images, the closest pairs, and the neighbours of every tile."""
    count = len(own.features)
    within, across = np.full(count, FAR), np.full(count, FAR)
    nearest = np.zeros(count, dtype=int)
    near = {kind: (np.full((tiles, NEIGHBOURS), -1), np.zeros((tiles, NEIGHBOURS))) for kind in ("own", "base")}
    for start in range(0, count, CHUNK):
        rows = np.arange(start, min(start + CHUNK, count))
        block = _distances(own.features[rows], own.features)
        block[np.arange(len(rows)), rows] = FAR
        same = own.prompts[rows, None] == own.prompts
        within[rows] = np.where(same, block, FAR).min(axis=1)
        across[rows] = np.where(same, FAR, block).min(axis=1)
        nearest[rows] = block.argmin(axis=1)
        _keep(near["own"], block, own.tiles[rows], own.tiles)
        if own is not base:
            _keep(near["base"], _distances(own.features[rows], base.features), own.tiles[rows], base.tiles)
    return {
        "within": float((within < threshold).mean()),
        "across": float((across < threshold).mean()),
        "closest": float(np.median(np.minimum(within, across))),
        "pairs": _pairs(np.minimum(within, across), nearest, own.tiles),
        "near": {kind: [ids.ravel().tolist(), _short(distances)] for kind, (ids, distances) in near.items()},
    }


def _short(distances: np.ndarray) -> list[int]:
    """In ten-thousandths, which take half the room."""
    return (distances.ravel() * 1e4).round().astype(int).tolist()


def _keep(near: tuple[np.ndarray, np.ndarray], block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Write the nearest shown images of every shown row into its place."""
    shown, candidates = rows >= 0, columns >= 0
    block, columns = block[shown][:, candidates], columns[candidates]
    few = min(NEIGHBOURS, block.shape[1])
    if not few or not len(block):
        return
    order = np.argpartition(block, few - 1, axis=1)[:, :few]
    values = np.take_along_axis(block, order, axis=1)
    rank = values.argsort(axis=1)
    distances = np.take_along_axis(values, rank, axis=1)
    ids = np.where(distances < FAR, columns[np.take_along_axis(order, rank, axis=1)], -1)
    near[0][rows[shown], :few], near[1][rows[shown], :few] = ids, distances


def _pairs(distance: np.ndarray, nearest: np.ndarray, tiles: np.ndarray) -> list[list[float]]:
    """The closest pairs of shown images as (tile, tile, distance), each image in one pair at most."""
    used: set[int] = set()
    pairs: list[list[float]] = []
    for i in distance.argsort(kind="stable"):
        pair = (int(tiles[i]), int(tiles[nearest[i]]))
        if distance[i] < FAR and min(pair) >= 0 and not used & set(pair):
            pairs.append([*pair, float(distance[i])])
            used |= set(pair)
        if len(pairs) == PAIRS:
            break
    return pairs
