"""Draw the pictures of docs/concepts.md: `python -m tools.pictures runs/emoji64-frontier`."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot
from PIL import Image

import sfumato
from sfumato.metrics import recall, vendi_score
from sfumato.pipelines.latents import decode
from sfumato.pipelines.predictions import predicted_original
from sfumato.runs import Run

FOLDER = Path("docs/images")
COLOURS = {"ink": "#010101", "soft": "#020202", "grid": "#030303", "m0": "#040404", "m1": "#050505", "m2": "#060606"}
"""Stand-ins that matplotlib writes, each of which becomes the colour of that name in the report's palette."""
TILE, GAP, LEFT, TOP = 84, 6, 150, 30


def main(folder: str) -> None:
    run = Run.load(folder)
    pyplot.rcParams.update(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "sfumato",
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": COLOURS["soft"],
            "axes.labelcolor": COLOURS["ink"],
            "text.color": COLOURS["ink"],
            "xtick.color": COLOURS["soft"],
            "ytick.color": COLOURS["soft"],
            "grid.color": COLOURS["grid"],
            "figure.constrained_layout.use": True,
        }
    )
    save(training(run), "training")
    save(plane(run), "plane")
    save(schedules(), "schedules")
    save(covered(), "recall")
    write("vendi", variety(run, "heart"))
    write("noise", decided(run))


def training(run: Run) -> Any:
    """What the training saw, what it did not see, and the diversity, over the updates."""
    lines = [json.loads(line) for line in (run.path / "training/tuned/metrics.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "eval/reward" in line]
    figure, axes = pyplot.subplots(1, 3, figsize=(8.8, 2.7))
    titles = {"reward": "reward (trained on)", "gold": "gold (never trained on)", "vendi": "Vendi score (diversity)"}
    peak = max(looks, key=lambda look: look["eval/gold"])["update"]
    for axis, (key, title), colour in zip(axes, titles.items(), ("m0", "m1", "m2"), strict=True):
        axis.axvline(peak, color=COLOURS["soft"], linewidth=1, linestyle=":")
        axis.plot([k["update"] for k in looks], [k[f"eval/{key}"] for k in looks], "o-", color=COLOURS[colour])
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("updates")
        axis.margins(y=0.15)
    return figure


def plane(run: Run) -> Any:
    """Operating points of a run on the plane, with what AIG's dominate above the reference point."""
    frontier = run.frontier()
    points = {p["name"]: (p["metrics"]["reward"]["mean"], p["metrics"]["vendi"]["mean"]) for p in frontier["points"]}
    (base, full), (least, most) = frontier["scale"]["reward"], frontier["scale"]["diversity"]
    corner = (base - 0.1 * (full - base), least - 0.1 * (most - least))
    figure, axis = pyplot.subplots(figsize=(7.2, 4.2))
    names = ["base", "aig-power-4", "aig-power-2", "aig-power-1", "tuned"]
    path = np.array([points[name] for name in names])
    edges = [corner[0], *path[:, 0]]
    axis.stairs(path[:, 1], edges, baseline=corner[1], fill=True, color=COLOURS["m0"], alpha=0.12, linewidth=0)
    for name, dx, dy in (("base", 8, 6), ("tuned", 8, -4)):
        axis.annotate(name, points[name], xytext=(dx, dy), textcoords="offset points")
    for name, label in (("aig-power-4", "AIG, p = 4"), ("aig-power-2", "p = 2"), ("aig-power-1", "p = 1")):
        axis.annotate(label, points[name], xytext=(8, 6), textcoords="offset points", color=COLOURS["m0"])
    axis.plot(*path.T, "o-", color=COLOURS["m0"])
    early = np.array([points[f"tuned-{k}"] for k in (10, 20, 30)])
    axis.plot(*early.T, "s", color=COLOURS["m1"])
    for (x, y), updates in zip(early, (10, 20, 30), strict=True):
        axis.annotate(f"{updates} updates", (x, y), xytext=(-10, -17), textcoords="offset points", color=COLOURS["m1"])
    axis.plot(*corner, "x", color=COLOURS["soft"])
    axis.annotate("reference point", corner, xytext=(8, 4), textcoords="offset points", color=COLOURS["soft"])
    axis.set_xlabel("reward: better →")
    axis.set_ylabel("Vendi score: more varied →")
    axis.set(xlim=(0, 4.4), ylim=(1.58, 2.22))
    return figure


def schedules() -> Any:
    """g(u) of the schedules that ship."""
    rising = {
        "linear": ("linear", {}),
        "power, p = 2": ("power", {"p": 2}),
        "power, p = 4": ("power", {"p": 4}),
        "step, f = 0.6": ("step", {"f": 0.6}),
    }
    others = {
        "constant, w = 0.6": ("constant", {"w": 0.6}),
        "power, p = 2, cap = 0.5": ("power", {"p": 2, "cap": 0.5}),
        "falling, p = 2": ("falling", {"p": 2}),
        "sigmoid, k = 12, m = 0.5": ("sigmoid", {"k": 12, "m": 0.5}),
    }
    u = np.linspace(0, 1, 401)
    figure, axes = pyplot.subplots(1, 2, figsize=(8.8, 3.6), sharey=True)
    for axis, group in zip(axes, (rising, others), strict=True):
        for (label, (name, parameters)), line in zip(group.items(), ("-", "--", "-.", ":"), strict=True):
            g = sfumato.schedule(name, **parameters)
            colour = COLOURS[("m0", "m1", "m2", "ink")[("-", "--", "-.", ":").index(line)]]
            axis.plot(u, [g(each) for each in u], line, label=label, color=colour, linewidth=1.8)
        axis.set_xlabel("u: pure noise → image")
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.28), ncols=2, fontsize=10)
        axis.grid(True)
    axes[0].set_ylabel("g(u): base → tuned")
    return figure


def covered() -> Any:
    """Recall in two dimensions: how many of the base's samples lie in a ball around a sample of the other set."""
    draw = np.random.default_rng(3)
    base = draw.normal(size=(40, 2))
    sets = {"the base, other seeds": draw.normal(size=(40, 2)), "collapsed": 0.35 * draw.normal(size=(40, 2)) + 0.4}
    figure, axes = pyplot.subplots(1, 2, figsize=(8.8, 4.0), sharex=True, sharey=True)
    for axis, (title, fake) in zip(axes, sets.items(), strict=True):
        distances = np.linalg.norm(fake[:, None] - fake[None], axis=-1)
        for centre, radius in zip(fake, np.sort(distances, axis=1)[:, 3], strict=True):
            axis.add_patch(pyplot.Circle(centre, radius, color=COLOURS["m0"], alpha=0.09, linewidth=0))
        axis.plot(*fake.T, ".", color=COLOURS["m0"])
        axis.plot(*base.T, "o", color=COLOURS["m1"], fillstyle="none")
        value = recall(real=torch.tensor(base), fake=torch.tensor(fake), k=3)
        axis.set_title(f"{title}: recall {value:.2f}", fontsize=11)
        axis.set(aspect="equal", xlim=(-4, 4), ylim=(-2.9, 3.9))
        axis.axis("off")
    return figure


def variety(run: Run, prompt: str) -> str:
    """Eight pictures of one prompt under three operating points, with the Vendi score of all its pictures."""
    records, features = run.images(), run.features()
    rows = []
    for point, name in (("base", "base"), ("aig-power-4", "AIG, p = 4"), ("tuned", "tuned")):
        chosen = [i for i, r in enumerate(records) if r["point"] == point and r["prompt"] == prompt]
        score = vendi_score(torch.as_tensor(np.asarray(features)[chosen]))
        pictures = [Image.open(run.path / "evaluation" / records[i]["file"]) for i in chosen[:8]]
        rows.append(((name, f"Vendi {score:.2f}"), pictures))
    return wall(rows)


def decided(run: Run) -> str:
    """What the base and the tuned model take for the image at several noise levels, for the same three seeds."""
    pipe = sfumato.demo_pipeline()
    pipe.load_lora_weights(str(run.path / "training/tuned"))
    call = {"prompt": "fruit", "num_inference_steps": 12, "guidance_scale": 3.0}
    steps = [0, 1, 2, 3, 5, 7, 9, 11]
    rows = []
    for name, scale in (("base", 0.0), ("tuned", 1.0)):
        with torch.no_grad(), sfumato.lora_scale(pipe, scale):
            seen = sfumato.rollout(pipe, seeds=[0, 1, 2], record=True, **call)
            guesses = [decode(pipe, predicted_original(pipe.scheduler, seen.steps[i]), **call) for i in steps]
        for seed in range(3):
            tensors = [(each[seed].permute(1, 2, 0).numpy() * 255).round().astype("uint8") for each in guesses]
            rows.append(((f"{name}, seed {seed}",), [Image.fromarray(tensor) for tensor in tensors]))
    return wall(rows, [f"u = {i / 11:.2f}" for i in steps])


def wall(rows: Sequence[tuple[Sequence[str], Sequence[Image.Image]]], columns: Sequence[str] = ()) -> str:
    """Labelled rows of pictures as one SVG."""
    top = TOP if columns else GAP
    parts = [
        f'<text x="{LEFT + i * (TILE + GAP) + TILE / 2}" y="20" text-anchor="middle" class="soft">{label}</text>'
        for i, label in enumerate(columns)
    ]
    for j, (labels, pictures) in enumerate(rows):
        y = top + j * (TILE + GAP)
        for line, label in enumerate(labels):
            height = y + TILE / 2 + 5 + 20 * (line - (len(labels) - 1) / 2)
            parts.append(f'<text x="{LEFT - 12}" y="{height}" text-anchor="end">{escape(label)}</text>')
        for i, picture in enumerate(pictures):
            buffer = io.BytesIO()
            picture.save(buffer, "WEBP", quality=88)
            data = base64.b64encode(buffer.getvalue()).decode()
            parts.append(
                f'<image x="{LEFT + i * (TILE + GAP)}" y="{y}" width="{TILE}" height="{TILE}" '
                f'href="data:image/webp;base64,{data}"/>'
            )
    width = LEFT + max(len(pictures) for _, pictures in rows) * (TILE + GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + len(rows) * (TILE + GAP)}">'
    return "\n".join([head, "<style>text { fill: var(--ink) } .soft { fill: var(--soft) }</style>", *parts, "</svg>\n"])


def save(figure: Any, name: str) -> None:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    write(name, buffer.getvalue())


def write(name: str, svg: str) -> None:
    """Give a picture the report's colours, light and dark."""
    for colour, stand_in in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{colour})")
    palette = Path("src/sfumato/report/web/palette.css").read_text(encoding="utf-8")
    family = 'text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important }'
    start = svg.index(">", svg.index("<svg")) + 1
    (FOLDER / f"{name}.svg").write_text(f"{svg[:start]}<style>{palette}{family}</style>{svg[start:]}", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
