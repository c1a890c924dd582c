"""The arithmetic of the benchmarks: what they measure with, not what they measure."""

from __future__ import annotations

import importlib
import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from benchmarks import clocks
from safetensors.torch import save_file
from torch.profiler import ProfilerActivity, profile

from sfumato.metrics import mean_pairwise_distance, prdc, vendi_score
from sfumato.schedules import schedule

FOLDER = Path(__file__).parent.parent / "benchmarks" / "guidance"
METRICS = FOLDER.parent / "metrics"
PROMPTS = ("a", "b", "c")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/guidance, which run as a folder."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return SimpleNamespace(**{name: importlib.import_module(name) for name in ("forms", "cost", "quality")})


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
