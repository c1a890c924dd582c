"""The optimisers that a recipe can name, what checkpoints keep of them, and gradients in half precision."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.training.checkpoints import TrainingState
from sfumato.training.update import HALF_SCALE
from tests import tiny
from tests.training.common import brightness, captured_gradients, make_trainer


def test_an_optimizer_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match="needs bitsandbytes: pip install bitsandbytes, or set adamw"):
        make_trainer(tmp_path, optimizer="adamw_8bit")


def test_an_optimizer_for_gpus_is_refused_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", sys)
    with pytest.raises(ValueError, match="does not run on a CPU"):
        make_trainer(tmp_path, optimizer="adamw_8bit")


class Eight(torch.optim.Optimizer):
    """It remembers what bitsandbytes does: steps in an int, moments in bytes, and one table for all parameters."""

    def __init__(self, parameters):
        super().__init__(parameters, {})
        self.table = torch.linspace(-1, 1, 256)

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state |= {"step": 0, "state1": torch.zeros_like(parameter, dtype=torch.uint8), "qmap1": self.table}
            assert type(state["step"]) is int and state["state1"].dtype == torch.uint8
            state["step"] += 1
            state["state1"] += 1
            parameter -= state["step"] * state["qmap1"][state["state1"].long()]


def roundtrip(optimizer_class, file, step):
    """Three steps, and two of which the second comes after a checkpoint."""

    def state():
        parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.zeros(5))]
        return TrainingState(0, parameters, optimizer_class(parameters), None)

    whole, before, after = state(), state(), state()
    for each, count in ((whole, 3), (before, 2)):
        for _ in range(count):
            step(each)
    save_file(before.tensors(), file)
    after.load(2, load_file(file))
    step(after)
    return whole, after


@pytest.mark.parametrize("optimizer_class", [Eight, torch.optim.AdamW])
def test_a_checkpoint_holds_what_an_optimizer_remembers(optimizer_class, tmp_path):
    def step(state):
        for parameter in state.parameters:
            parameter.grad = torch.full_like(parameter, 0.3)
        state.optimizer.step()

    whole, after = roundtrip(optimizer_class, tmp_path / "state.safetensors", step)
    for found, wanted in zip(after.parameters, whole.parameters, strict=True):
        assert torch.equal(found, wanted)


def test_a_checkpoint_holds_what_bitsandbytes_remembers(tmp_path):
    optim = pytest.importorskip("bitsandbytes").optim

    def begin(state):  # its 8-bit steps themselves need a GPU
        for index, parameter in enumerate(state.parameters):
            if not state.optimizer.state[parameter]:
                state.optimizer.init_state(state.optimizer.param_groups[0], parameter, 0, index)

    def build(parameters):
        found = optim.AdamW8bit(parameters, min_8bit_size=1)
        found.fill_qmap()
        return found

    whole, after = roundtrip(build, tmp_path / "state.safetensors", begin)
    for found, wanted in zip(after.parameters, whole.parameters, strict=True):
        one, other = after.optimizer.state[found], whole.optimizer.state[wanted]
        assert one.keys() == other.keys() and type(one["step"]) is type(other["step"])
        assert all(torch.equal(one[key], other[key]) for key in one if key != "step")
        assert one["state1"].dtype == torch.uint8


def test_small_gradients_survive_in_float16(tmp_path):
    def faint(images, prompts):
        return brightness(images, prompts) / 256

    found = {}
    for dtype in (torch.float32, torch.float16):
        trainer = make_trainer(tmp_path / str(dtype), reward=faint, pipe=tiny.pipeline("sd").to(dtype), steps=1)
        assert trainer.scale == (HALF_SCALE if dtype == torch.float16 else 1.0)
        gradients = captured_gradients(trainer)
        trainer.run()
        found[dtype] = torch.cat([gradient.flatten() for gradient in gradients[0]])
    error = (found[torch.float16] - found[torch.float32]).norm() / found[torch.float32].norm()
    assert error < 0.05
