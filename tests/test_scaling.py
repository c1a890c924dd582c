"""What docs/scaling.md counts is what happens, on models small enough to be run."""

from contextlib import nullcontext

import pytest
import torch
from benchmarks.scaling import costs, parts
from benchmarks.scaling.live import LiveBytes
from benchmarks.scaling.published import MODELS, Model, count, unet_inputs

from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.pipelines.lean import lean
from sfumato.training import DDPO, AdjointMatching, AlignProp, DiffusionDPO, Draft, DraftLV, FlowGRPO, ReFL
from tests import tiny
from tests.training.common import NOISY, make_trainer
from tests.training.pairs_bed import write_pairs

KL = {"regularizers": {"kl": {"coefficient": 0.1}}}
GROUPS = {"images_per_prompt": 2, "batch_size": 2}


@pytest.fixture(autouse=True)
def untried(monkeypatch):
    """Count updates alone, without the images on which a reward is tried before the first."""
    monkeypatch.setattr("sfumato.training.trainer.try_on_base", lambda *_: None)


def rows(trainer):
    """Rows that run through the denoiser in an update, without and with gradient, per image."""
    seen = {False: 0, True: 0}

    def see(_, args, kwargs):
        given = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        seen[torch.is_grad_enabled()] += len(given)

    denoiser(trainer.pipe).register_forward_pre_hook(see, with_kwargs=True)
    next(iter(trainer))
    return costs.Forwards(seen[False] // trainer.config.batch_size, seen[True] // trainer.config.batch_size)


@pytest.mark.parametrize(
    ("objective", "changes", "wanted"),
    [
        (Draft(1), {}, costs.draft(4)),
        (Draft(3), KL, costs.draft(4, 3, kl=True)),
        (AlignProp(low=2, high=2), {}, costs.draft(4, 2)),
        (DraftLV(2), {}, costs.draft_lv(4, 2)),
        (ReFL((0.999, 1.0)), {}, costs.refl(3)),
        (DDPO(steps=2), GROUPS, costs.policy(4, 2)),
        (DDPO(inner_epochs=2, clip_range=0.2), GROUPS, costs.policy(4, 3, 2)),
        (AdjointMatching(beta=1.0), {}, costs.adjoint_matching(4, [0, 1, 2])),
    ],
    ids=str,
)
def test_as_many_forwards_as_counted(objective, changes, wanted, tmp_path):
    assert rows(make_trainer(tmp_path, objective=objective, sampling=NOISY["sd"], **changes)) == wanted


def test_flow_models_are_counted_alike(tmp_path):
    found = rows(make_trainer(tmp_path, "sd3", FlowGRPO(), sampling=NOISY["sd3"], **GROUPS))
    assert found == costs.policy(4, 3)


def test_pairs_are_run_without_guidance(tmp_path):
    pairs = write_pairs(tmp_path, [1.0, 0.0])
    objective = DiffusionDPO(pairs=pairs, noise_levels=None)
    assert rows(make_trainer(tmp_path / "run", objective=objective, sampling=NOISY["sd"])) == costs.dpo()


TINY = Model(
    "tiny",
    64,
    lambda: tiny.pipeline("sd").unet,
    lambda: tiny.pipeline("sd").vae,
    (),
    unet_inputs(tiny.TOKENS, 8),
)


@pytest.mark.parametrize("leanly", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fake_tensors_take_the_bytes_of_real_ones(checkpointing, leanly):
    fake = parts.denoiser(TINY, 4, torch.float32, checkpointing, rank=2, lean=leanly)
    pipe = tiny.pipeline("sd")
    tiny.perturbed_lora(pipe)
    if checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    given = TINY.inputs(8, 64)
    with lean(pipe.unet) if leanly else nullcontext():
        real = parts.measured(lambda: pipe.unet(**given, return_dict=False)[0], trainable(pipe.unet))
    for name in ("held", "peak", "plain"):
        assert getattr(fake, name) == pytest.approx(getattr(real, name), rel=0.05), name


@pytest.mark.parametrize("last_steps", [1, 2])
def test_the_highest_memory_of_an_update_is_the_predicted_one(last_steps, tmp_path):
    images = 16
    step = parts.denoiser(TINY, images, torch.float32, False, rank=8)
    predicted = costs.draft_peak(step, parts.decoder(TINY, torch.float32, False, batch=images), last_steps)
    options = {
        "batch_size": images,
        "lora": {"rank": 8},
        "prefix": {"merge": False, "dtype": None, "denoiser_every": 1},
    }
    updates = iter(make_trainer(tmp_path, objective=Draft(last_steps), **options))
    next(updates)  # the optimiser has its state, the prompts are encoded
    with LiveBytes() as live:
        next(updates)
    assert live.peak == pytest.approx(predicted, rel=0.1)


def test_parameters_are_those_of_the_published_models():
    assert count(MODELS["sd15"].denoiser) == 859_520_964
    assert count(MODELS["sd15"].vae) == 83_653_863
    assert [count(make) for make in MODELS["sd15"].encoders] == [123_060_480]
