"""A bed for policy gradients: worlds whose expected reward has a gradient in closed form, and many groups of images.

Every group of images has a prompt, and every prompt its own parameters, though all prompts of a kind have one world. So
the gradient of any loss that is a mean over the batch is an independent estimate for each group, and its expectation
can be tested: `bed.gradients(loss)` against `bed.truth()`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.analytic import AffineStep, AnalyticPipeline, QuadraticReward, affine_steps, analytic_pipeline, gaussian
from sfumato.pipelines.rollout import Rollout, replay, rollout
from sfumato.pipelines.sde import flow_sde
from sfumato.pipelines.stochastic import LEAST, log_prob, step_mean, step_std, stochastic_steps
from tests.analytic.bed import scheduler

KINDS = {
    "wide": (torch.tensor([0.5, -1.0, 0.0]), torch.tensor([1.0, 0.7, 2.0])),
    "narrow": (torch.tensor([0.0, 0.3, -0.5]), torch.tensor([0.2, 0.1, 0.3])),
}
"""Means and variances of the two kinds of worlds."""
REWARD = QuadraticReward(linear=torch.tensor([0.5, -1.0, 1.0]), curvature=torch.tensor([1.0, 0.0, 0.3]), constant=2.0)
NOISE_LEVEL = 0.7


@dataclass(frozen=True)
class Bed:
    """A pipeline with trainable worlds, and how to sample it.

    Attributes:
        pipe: made by `policy_bed`; the weights of its heads are the parameters.
        size: G, images per group.
        call: arguments of the pipeline's call.
        context: within which everything is run, such as `flow_sde`.
        steps: the sampler's steps in closed form, from its scheduler.
    """

    pipe: AnalyticPipeline
    size: int
    call: dict[str, Any]
    context: Callable[[], contextlib.AbstractContextManager[None]]
    steps: Callable[[Any], list[AffineStep]]

    @property
    def prompts(self) -> list[str]:
        """One per image; the images of a group are neighbours, and kinds take turns."""
        return [prompt for prompt in self.pipe.config["prompts"] for _ in range(self.size)]

    @property
    def parameters(self) -> list[Tensor]:
        """Means and log-variances of the worlds, (D, groups) each."""
        return [self.pipe.unet.mean.weight, self.pipe.unet.log_variance.weight]

    def sample(self, seed: int) -> Sampled:
        """All images, recorded, from the current parameters; other seeds give independent ones."""
        seeds = range(seed * len(self.prompts), (seed + 1) * len(self.prompts))
        with self.context():
            result = rollout(self.pipe, prompt=self.prompts, seeds=seeds, record=True, **self.call)
            places = stochastic_steps(self.pipe, result)
        rewards = REWARD(result.images).view(-1, self.size)
        sampled = Sampled(result, places, rewards, torch.empty(0))
        return Sampled(result, places, rewards, self.log_probs(sampled).detach())

    def log_probs(self, sampled: Sampled) -> Tensor:
        """The log-probabilities (T, B) of the recorded samples under the current parameters, with gradient."""
        rows = []
        with self.context():
            for place in sampled.places:
                step = sampled.rollout.steps[place]
                again = replay(self.pipe, sampled.rollout, place, grad=True)
                rows.append(
                    log_prob(step.next_sample, step_mean(self.pipe, step, again.prediction), step_std(self.pipe, step))
                )
        return torch.stack(rows)

    def gradients(self, loss: Tensor) -> Tensor:
        """The direction of ascent that each pair of groups, one of each kind, asks for, (pairs, 2 kinds * 2 D).

        Args:
            loss: to be minimised, a mean over all images.
        """
        mean, log_variance = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        groups = mean.shape[1]
        return -groups * torch.cat([mean, log_variance]).T.reshape(groups // len(KINDS), -1)

    @contextlib.contextmanager
    def moved(self, length: float) -> Iterator[None]:
        """All worlds moved up the gradient of the expected reward, as by a step of training."""
        before = [parameter.detach().clone() for parameter in self.parameters]
        direction = self.truth().view(len(KINDS), len(before), -1)
        with torch.no_grad():
            for place, parameter in enumerate(self.parameters):
                pairs = parameter.shape[1] // len(KINDS)
                parameter += length * direction[:, place].T.repeat(1, pairs)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(self.parameters, before, strict=True):
                    parameter.copy_(value)

    def truth(self, *, whole: bool = False) -> Tensor:
        """∂ E[r] / ∂ (means, log-variances) of each kind, in the order of `gradients`, (2 kinds * 2 D,).

        Args:
            whole: with the part that goes through steps without noise, which no log-probability sees.
        """
        parts = []
        for kind in range(len(KINDS)):
            mean, log_variance = (head[:, kind].detach().clone().requires_grad_() for head in self.parameters)
            reward = self.expected_reward(mean, log_variance, whole=whole)
            parts += torch.autograd.grad(reward, [mean, log_variance])
        return torch.cat(parts)

    def expected_reward(self, mean: Tensor, log_variance: Tensor, *, whole: bool = True) -> Tensor:
        """E[r] of the sampler's images from the exact denoiser of N(mean, exp(log_variance)); see `truth`."""
        now, spread = torch.zeros(3).double(), torch.ones(3).double()
        for step in self.steps(self.pipe.scheduler):
            m, v = mean, log_variance.exp()
            if not (whole or step.noise > LEAST):
                m, v = m.detach(), v.detach()
            total = step.alpha**2 * v + step.sigma**2
            slope, offset = step.alpha * v / total, m * step.sigma**2 / total
            gain = step.keep + step.follow * slope
            now, spread = gain * now + step.follow * offset, gain**2 * spread + step.noise**2
        return REWARD.expectation(gaussian(now, spread))


@dataclass(frozen=True)
class Sampled:
    """Recorded images.

    Attributes:
        rollout: of all images.
        places: its stochastic steps.
        rewards: (groups, G).
        log_probs: (T, B), under the parameters that sampled.
    """

    rollout: Rollout
    places: list[int]
    rewards: Tensor
    log_probs: Tensor


def policy_bed(name: str, pairs: int = 150, size: int = 6, steps: int = 5) -> Bed:
    """A bed for DDPM, DDIM with η = 0.6, or the flow SDE.

    Args:
        name: "ddpm", "ddim" or "flow".
        pairs: how many groups of each kind.
        size: G.
        steps: N.
    """
    made = {
        "ddpm": lambda: scheduler("DDPMScheduler", timestep_spacing="trailing"),
        "ddim": lambda: scheduler("DDIMScheduler", timestep_spacing="trailing"),
        "flow": lambda: scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0),
    }
    worlds = {f"{kind} {i}": gaussian(*world) for i in range(pairs) for kind, world in KINDS.items()}
    pipe = analytic_pipeline(worlds, made[name]())
    pipe.scheduler.set_timesteps(steps)
    pipe.unet.requires_grad_(False)
    for head in (pipe.unet.mean, pipe.unet.log_variance):
        head.weight.requires_grad_(True)
    call = {"num_inference_steps": steps, **({"eta": 0.6} if name == "ddim" else {})}
    context = (lambda: flow_sde(pipe, NOISE_LEVEL)) if name == "flow" else contextlib.nullcontext
    closed = {"ddim": lambda s: affine_steps(s, eta=0.6), "flow": sde_steps}
    return Bed(pipe, size, call, context, closed.get(name, affine_steps))


def sde_steps(scheduler: Any, noise_level: float = NOISE_LEVEL) -> list[AffineStep]:
    """The steps of the flow SDE, the last one deterministic, as maps of x and E[x0 | x] = x - σ v."""
    sigmas = scheduler.sigmas.tolist()
    steps = []
    for now, after in pairwise(sigmas):
        s2 = noise_level**2 * now / (1 - (after if now == 1 else now)) if after else 0.0
        dt = after - now
        push = (1 + s2 * (1 - now) / (2 * now)) * dt / now
        steps.append(AffineStep(1 - now, now, 1 + s2 * dt / (2 * now) + push, -push, math.sqrt(-s2 * dt)))
    return steps


@dataclass(frozen=True)
class Estimator:
    """Turns log-probabilities and rewards into a loss: unbiased as it stands, each change a published default.

    Attributes:
        own: the baseline includes an image's own reward (GRPO), instead of the others' alone.
        spread: advantages are divided by the standard deviation of the rewards of the group (GRPO, DDPO), or of a pair
            of groups, one of each kind, which is an update (Flow-GRPO's code).
        largest: what they are clipped to thereafter.
        averaged: log-probabilities are averaged over dims (DDPO, Flow-GRPO).
        subset: how many steps are used for each image, drawn at random; None for all.
        weighted: the steps used are weighted by T / |S|.
        together: ratios are of whole trajectories, not of single steps.
        clip: of PPO, None for none.
    """

    own: bool = False
    spread: Literal["group", "update"] | None = None
    largest: float = math.inf
    averaged: bool = False
    subset: int | None = None
    weighted: bool = True
    together: bool = False
    clip: float | None = None

    def advantages(self, rewards: Tensor) -> Tensor:
        """(groups, G) of rewards (groups, G)."""
        size = rewards.shape[1]
        others = (rewards.sum(1, keepdim=True) - rewards) / (size - 1)
        found = rewards - (rewards.mean(1, keepdim=True) if self.own else others)
        if self.spread:
            compared = rewards if self.spread == "group" else rewards.view(-1, len(KINDS) * size)
            found = found.view_as(compared) / (compared.std(1, keepdim=True, correction=0) + 1e-6)
        return found.clamp(-self.largest, self.largest)

    def loss(self, log_probs: Tensor, sampled: Sampled, dimensions: int = 3) -> Tensor:
        """0-d, from log-probabilities (T, B) with gradient."""
        change = log_probs - sampled.log_probs
        if self.averaged:
            change = change / dimensions
        advantages = self.advantages(sampled.rewards).flatten()
        if self.together:
            change = change.sum(0, keepdim=True)
        ratio = change.exp()
        gain = ratio * advantages
        if self.clip is not None:
            gain = torch.minimum(gain, ratio.clamp(1 - self.clip, 1 + self.clip) * advantages)
        return -(gain * self._steps_used(gain)).sum(0).mean()

    def _steps_used(self, gain: Tensor) -> Tensor:
        if self.subset is None:
            return torch.ones_like(gain)
        ranks = torch.rand(gain.shape, generator=torch.Generator().manual_seed(0)).argsort(0)
        used = (ranks < self.subset).to(gain)
        return used * (len(gain) / self.subset if self.weighted else 1.0)


def mismatch(estimates: Tensor, truth: Tensor) -> float:
    """Hotelling's F of independent estimates (n, k) against their supposed expectation (k,).

    With 150 pairs of groups and 12 numbers it exceeds 3 once in 1,000 times if the supposition is right.
    """
    n, k = estimates.shape
    error = estimates.mean(0) - truth
    return float(n * (n - k) / (k * (n - 1)) * (error @ torch.linalg.solve(torch.cov(estimates.T), error)))
