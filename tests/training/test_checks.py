"""What is refused before a training starts."""

import pytest
from accelerate import tracking

from sfumato.config import SamplingConfig
from sfumato.pipelines.adapters import add_lora
from sfumato.pipelines.plan import planned_steps
from sfumato.rewards import as_reward
from sfumato.training import Draft
from sfumato.training.checks import check_training
from tests import tiny
from tests.training.common import PROMPTS, SAMPLING, brightness, make_trainer, settings


def check(family="sd", objective=None, prompts=PROMPTS, sampling=None, **changes):
    pipe = tiny.pipeline(family)
    reward = as_reward(brightness)
    check_training(pipe, objective or Draft(), reward, prompts, settings(**changes), sampling or SAMPLING[family])


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_a_sound_training_passes(family):
    check(family, Draft(2), sampling=SamplingConfig(num_inference_steps=2))


@pytest.mark.parametrize(("scheduler", "steps"), [("ddim", 2), ("pndm", 3), ("heun", 3)])
def test_gradient_through_as_many_steps_as_the_scheduler_takes(scheduler, steps):
    pipe = tiny.pipeline("sd", scheduler=scheduler)
    assert planned_steps(pipe, prompt="a", num_inference_steps=2) == steps
    arguments = (as_reward(brightness), PROMPTS, settings(), SAMPLING["sd"])
    check_training(pipe, Draft(steps), *arguments)
    with pytest.raises(ValueError, match=f"last {steps + 1} steps, but .* takes only {steps}: lower"):
        check_training(pipe, Draft(steps + 1), *arguments)


def test_looking_ahead_runs_no_denoiser_and_leaves_nothing():
    pipe = tiny.pipeline("sd")
    forwards, before = tiny.counted(pipe.unet), tiny.footprint(pipe)
    assert planned_steps(pipe, prompt="a", num_inference_steps=2) == 2
    after = tiny.footprint(pipe)
    assert forwards == []
    assert after["scheduler class"] is before["scheduler class"]
    assert "set_timesteps" not in vars(pipe.scheduler)
    assert after["gradient"] == before["gradient"] and after["random"] == before["random"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": []}, "no prompts"),
        ({"prompts": "bird"}, "prompts are one text, 'bird': give a list"),
        ({"sampling": SamplingConfig(arguments={"etta": 1.0})}, "takes no argument 'etta': did you mean 'eta'"),
        ({"sampling": SamplingConfig(arguments={"height": 13, "width": 13})}, "divisible by 8"),
        ({"lora": {"targets": ["nonesuch"]}}, "no layer named nonesuch"),
        ({"trackers": ["tensorbord"]}, "there is no tracker 'tensorbord': .*tensorboard"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(**changes)


def test_a_pipeline_that_was_trained_already_is_refused_until_its_lora_is_gone():
    pipe, arguments = tiny.pipeline("sd"), (as_reward(brightness), ["red"], settings(), SAMPLING["sd"])
    add_lora(pipe, rank=2, adapter="tuned")
    with pytest.raises(ValueError, match="carries a LoRA 'tuned' already, as after a training: load the pipe"):
        check_training(pipe, Draft(), *arguments)
    pipe.delete_adapters("tuned")
    check_training(pipe, Draft(), *arguments)


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(ValueError, match="'wandb' is not installed: pip install wandb"):
        check(trackers=["wandb"])


def test_a_tracker_gets_the_numbers(tmp_path, monkeypatch):
    calls = []

    class Notes(tracking.GeneralTracker):
        name, requires_logging_directory, main_process_only = "notes", False, True
        tracker = None

        def __init__(self, run_name, **kwargs):
            super().__init__()

        def store_init_configuration(self, values):
            calls.append(("settings", values))

        def log(self, values, step=None, **kwargs):
            calls.append((step, values))

        def finish(self):
            calls.append(("finished", {}))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notes", Notes)
    records = make_trainer(tmp_path, trackers=["notes"]).run()
    assert [step for step, _ in calls] == ["settings", 1, 2, 3, "finished"]
    assert [values["reward"] for _, values in calls[1:-1]] == [record["reward"] for record in records]
