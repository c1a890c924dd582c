"""The arithmetic of the benchmarks: what they measure with, not what they measure."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from benchmarks import clocks, overhead
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile

from sfumato.metrics import mean_pairwise_distance, prdc, vendi_score
from sfumato.schedules import schedule

FOLDER = Path(__file__).parent.parent / "benchmarks" / "guidance"
METRICS, TRAINERS = FOLDER.parent / "metrics", FOLDER.parent / "trainers"
PROMPTS = ("a", "b", "c")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/guidance, which run as a folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("forms", "cost", "quality")})


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/trainers, which run as a folder."""
    monkeypatch.syspath_prepend(str(TRAINERS))
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("bed", "worker", "speed", "race")})


def test_the_kernels_of_the_clocks_are_the_continuous_law() -> None:
    limit = clocks.Limit("logsnr", diffusers.DDIMScheduler(**clocks.DDIM, timestep_spacing="trailing"))
    assert limit.check(schedule("power", p=2)) < 1e-3
    assert limit.places(schedule("power", p=2)).min() < 0.2 < limit.places(schedule("power", p=0.5)).min()


def test_perfectly_distilled_models_keep_their_law_at_any_number_of_steps() -> None:
    scheduler = diffusers.LCMScheduler(**clocks.BETAS, clip_sample=False, rescale_betas_zero_snr=True)
    for steps in (1, 4):
        scheduler.set_timesteps(steps)
        mean_b, var_b, mean_r, var_r = clocks.WORLDS.parameters
        for name, mean, variance in (("base", mean_b, var_b), ("tuned", mean_r, var_r)):
            found = clocks.consistency_law(*clocks.WORLDS.parameters, scheduler, name)
            torch.testing.assert_close(found[0], mean, rtol=0, atol=1e-5)
            torch.testing.assert_close(found[1], variance, rtol=1e-6, atol=0)


def test_the_highest_memory_is_what_lives_at_once(bench: Any) -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        first, second = torch.zeros(1000, 250), torch.zeros(1000, 250)
        del first
        third = torch.zeros(1000, 125)
        del second, third
    assert bench.cost.highest(profiler) == 2_000_000


def test_differences_are_paired_and_shares_of_the_gap(bench: Any, tmp_path: Path) -> None:
    forms, quality = bench.forms, bench.quality
    cached = forms.REUSE[3]
    drawn = [(forms.BASE, 0.0, 4), (forms.TUNED, 10.0, 1), (forms.EXACT, 5.0, 2), (cached, 5.5, 2)]
    tasks = []
    for form, reward, kinds in drawn:
        for offset, prompt in enumerate(PROMPTS):  # prompts differ by much more than forms do
            task = quality.Task(tmp_path, form, prompt, 4, 12)
            task.file.parent.mkdir(parents=True, exist_ok=True)
            features = torch.eye(4)[torch.arange(4) % kinds]
            found = {"reward": torch.full((4,), reward + 100 * offset), "features": features}
            save_file({**found, "forwards": torch.tensor(12.0)}, task.file, {"definition": task.definition})
            tasks.append(task)
    assert quality.finished(tasks) == tasks
    by_form = {row["form"]: row for row in quality.analyse(tasks)}
    assert by_form[forms.EXACT.name]["reward"] == [0, 0, 0]
    np.testing.assert_allclose(by_form[cached.name]["reward"], 0.05, atol=1e-9)
    np.testing.assert_allclose(by_form[cached.name]["vendi"], 0.0, atol=1e-9)
    line = np.interp(5.5, [0, 5, 10], [vendi_score(torch.eye(n)) for n in (4, 2, 1)])
    np.testing.assert_allclose(by_form[cached.name]["above"], (2 - line) / 3, atol=1e-6)
    assert quality.equivalent(by_form[cached.name]) and not quality.equivalent(by_form[forms.TUNED.name])


def test_an_interrupted_measurement_compares_the_prompts_that_all_forms_have(bench: Any, tmp_path: Path) -> None:
    tasks = [bench.quality.Task(tmp_path, bench.forms.BASE, prompt, 4, 12) for prompt in PROMPTS]
    tasks[0].file.parent.mkdir(parents=True)
    save_file({"reward": torch.zeros(4)}, tasks[0].file, {"definition": tasks[0].definition})
    save_file({"reward": torch.zeros(4)}, tasks[1].file, {"definition": "of another setting"})
    assert bench.quality.finished(tasks) == tasks[:1]


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"metrics_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_costs_of_the_measures_are_those_of_the_measures() -> None:
    worker, table = _load(METRICS / "worker.py"), _load(METRICS / "__main__.py")
    names = [name for name in table.LARGE if name != "kid_subsets"]  # which wants a thousand rows
    results = {name: worker.ours(name, 40, 24)() for name in names}
    real, fake = (torch.from_numpy(worker.features(40, 24, seed)) for seed in (0, 1))
    assert results["prdc"] == prdc(real, fake)._asdict()
    assert results["euclidean"] == mean_pairwise_distance(real, "euclidean")
    assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))
    table.check_equal(results["prdc"], {**results["prdc"]})
    with pytest.raises(AssertionError, match="is not"):
        table.check_equal(results["prdc"], {**results["prdc"], "recall": 2.0})


def test_the_overhead_is_what_is_above_the_sum_of_parts() -> None:
    seconds = {"ddpo": 2.2, "forward": 0.5, "backward": 1.0}
    assert list(overhead.table("ddpo", seconds, {"forward": 2, "backward": 1}))[-1].startswith("overhead +10.0%")
    verdicts = [list(overhead.table("ddpo", {**seconds, "ddpo": x}, {"forward": 2, "backward": 1})) for x in (2.0, 2.2)]
    assert [lines[-1].rsplit(": ")[1] for lines in verdicts] == ["is reached", "IS MISSED"]


def test_trainers_are_compared_within_rounds(trainers: Any) -> None:
    def row(seconds: float, memory: int) -> dict[str, Any]:
        return {"seconds": [seconds / 2, seconds * 3 / 2], "cpu": [seconds], "bytes": memory, "calls": 21}

    busy = (1.0, 5.0, 2.0)  # what else the machine does weighs on both sides of a round
    names = {bar.theirs for bar in trainers.speed.BARS} | {bar.ours for bar in trainers.speed.BARS}
    found = {name: [row(load, 100) for load in busy] for name in names}
    found["AlignProp, K = 1"] = [row(1.2 * load, 130) for load in busy]
    lines = {tuple(line.split(" | ")[:2]): line for line in trainers.speed.bars(found)}
    seconds = lines["| AlignProp, K = 1 / draft", "seconds"]
    assert seconds.split(" | ")[2:] == ["1.20", "1.20 to 1.20", "1.20", "1.60", "IS MISSED |"]
    assert "1.20" in lines["| AlignProp, K = 1 / draft, exact", "seconds"]
    assert "is reached" in lines["| AlignProp, K = 1 / draft, exact", "seconds"]
    assert lines["| AlignProp, K = 1 / draft", "bytes"].endswith("is reached |")
    assert "IS MISSED" in lines["| DDPO / ddpo", "bytes"]
    assert any(line.startswith("| draft | 2.00 | 2.00 | 2.00 | 21.0 ") for line in trainers.speed.table(found, 4))


def test_the_memory_of_an_update_is_what_it_adds(trainers: Any) -> None:
    kept = torch.zeros(1000, 1000)

    def update() -> None:
        first = torch.zeros(1000, 250)
        del first
        second = torch.zeros(1000, 500)
        kept.add_(float(second[0, 0]))

    assert trainers.worker.peak_memory(trainers.bed.Side(None, update)) == pytest.approx(2_000_000, rel=1e-3)


@pytest.mark.parametrize(("cap", "reached"), [(1.0, True), (0.0, False)])
def test_a_race_ends_at_the_target_or_the_cap(
    trainers: Any, monkeypatch: pytest.MonkeyPatch, cap: float, reached: bool
) -> None:
    level = [0.0]

    def pipe(prompt: list[str], **call: Any) -> Any:
        time.sleep(0.01)  # an evaluation takes time, which does not count
        return SimpleNamespace(images=torch.full((len(prompt), 3, 2, 2), level[0]))

    def update() -> None:
        level[0] += 0.1

    fake = SimpleNamespace(start=lambda settings: trainers.bed.Side(pipe, update))
    monkeypatch.setitem(sys.modules, "fake_side", fake)
    monkeypatch.setitem(trainers.bed.REWARDS, "brightness", lambda: lambda images, prompts: images.mean(dim=(1, 2, 3)))
    found = trainers.race.train("fake_side", trainers.bed.Settings("", "", "brightness"), 0.95, cap)
    assert found["updates"] == (10 if reached else 0)
    assert (found["minutes"] is not None) == reached
    assert found["highest"] == pytest.approx(1.0 if reached else 0.0)
    assert found["curve"][-1][0] * 60 < 0.01
