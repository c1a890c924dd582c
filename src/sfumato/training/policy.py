"""Policy gradients: sample and score without gradient, then take the recorded steps again with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.random import Generator

from sfumato.config import TrainingConfig
from sfumato.pipelines.halves import Halves, conditional_gradient
from sfumato.pipelines.plan import planned_steps
from sfumato.pipelines.rollout import Step, replay
from sfumato.pipelines.stochastic import LEAST, log_prob, planned_stochastic_steps, step_mean, step_std
from sfumato.rewards import Reward
from sfumato.training.advantages import Baseline, Spread, advantages, check_groups
from sfumato.training.batches import images_of_update
from sfumato.training.objective import Batch, Outcome
from sfumato.training.terms import Trajectory
from sfumato.training.trainer import TrainingError
from sfumato.training.update import Tally, Update

TOLERANCE = 0.1
"""How far a ratio that should be 1 may be from it, as a share of the clip range; more could decide what is clipped."""


@dataclass(frozen=True)
class Episode:
    """A micro-batch as it was sampled, to be trained on.

    Attributes:
        trajectory: the recorded steps; images and predictions are not kept.
        rewards: (B,), as they are.
        values: (B,), what is maximised.
        logs: about `values`.
        stds: standard deviations of the steps that are trained, 0-d each.
        log_probs: of the samples at these steps, under the policy that sampled, (B,) each.
        weight: of every such step in the loss.
    """

    trajectory: Trajectory
    rewards: torch.Tensor
    values: torch.Tensor
    logs: dict[str, torch.Tensor]
    stds: dict[int, torch.Tensor]
    log_probs: dict[int, torch.Tensor]
    weight: float


@dataclass(frozen=True)
class PolicyGradient:
    """REINFORCE over the log-probabilities of stochastic steps, with the clipped ratio of PPO.

    With A the advantage of an image and ρ = p(x' | x) / p_sampled(x' | x), the loss is minus the mean over images and
    trained steps of min(ρ A, clip(ρ, 1 ± clip_range) A). All images of an update are sampled first, then the optimiser
    takes inner_epochs · minibatches steps. In the first of them ρ = 1, so its gradient is that of A log p.

    Attributes:
        baseline: what is subtracted from rewards; see `advantages`.
        normalize: whose standard deviation they are divided by.
        advantage_clip: largest absolute advantage.
        clip_range: how far from 1 a ratio still has a gradient.
        inner_epochs: passes over the update's images.
        minibatches: steps of the optimiser in a pass, among which its micro-batches are shared out in their order.
        steps: how many stochastic steps are trained, chosen anew for each update; None for all.
        average: log-probabilities are means over dims, and the loss is a mean over steps, as published. Without it both
            are sums, as in the gradient of the expected reward, where the steps chosen count for all.
        unconditional_gradient: whether the unconditional half of classifier-free guidance has a gradient too.
    """

    baseline: Baseline = "prompt"
    normalize: Spread | None = "prompt"
    advantage_clip: float | None = 5.0
    clip_range: float = 1e-4
    inner_epochs: int = 1
    minibatches: int = 1
    steps: int | None = None
    average: bool = True
    unconditional_gradient: bool = True

    def sampler(self, pipe: Any, random: Generator | None = None) -> AbstractContextManager[None]:
        """A context in which the pipeline's steps draw noise; `random` is that of the update, None for a look ahead."""
        return nullcontext()

    def check(self, reward: Reward) -> None:
        pass

    def check_images(self, prompts: list[str], config: TrainingConfig) -> None:
        """Raise ValueError if an image has none to be compared with, or there are too few micro-batches."""
        drawn, _ = images_of_update(prompts, config.batch_size, config.seed, 1, config.images_per_prompt)
        check_groups(drawn, self.baseline, self.normalize)
        self._check_parts(-(-config.batch_size // (config.micro_batch_size or config.batch_size)))

    def check_sampling(self, pipe: Any, prompt: str, call: dict[str, Any]) -> None:
        planned_steps(pipe, prompt=prompt, **call)
        with self.sampler(pipe), self._halves(pipe, 1):
            found = planned_stochastic_steps(pipe, prompt=prompt, **call)
        if self.steps and self.steps > len(found):
            raise ValueError(
                f"training.objective.steps is {self.steps}, but only {len(found)} steps draw noise: lower it, or raise "
                "sampling.num_inference_steps"
            )

    def __call__(self, update: Update) -> Iterator[Tally]:
        self._check_parts(len(update.batches))
        random = update.random()
        with self.sampler(update.batches[0].pipe, random):
            episodes = list(self._episodes(update.batches, random))
            found = self._advantages(update, episodes)
            size = len(episodes) // self.minibatches
            for turn in range(self.inner_epochs * self.minibatches):
                start = turn % self.minibatches * size
                yield self._turn(update, episodes[start : start + size], found, first=turn == 0)

    def _turn(self, update: Update, episodes: Sequence[Episode], found: torch.Tensor, first: bool) -> Tally:
        """The gradient for one step of the optimiser.

        Args:
            episodes: of this step.
            found: the advantages of all images of the update, (N,).
            first: whether the weights are still those that sampled.
        """
        known = {episode.trajectory.batch.place.start: episode for episode in episodes}
        off: list[torch.Tensor] = []

        def outcomes(batch: Batch) -> Iterator[Outcome]:
            episode = known[batch.place.start]
            if not batch.terms.penalties and not found[update.alongside(batch.place)].any():
                return iter([self._nothing(episode)])
            return self._outcomes(episode, found[batch.place], off)

        tally = update.accumulate(outcomes, [episode.trajectory.batch for episode in episodes])
        if first:
            self._check_on_policy(off)
        return tally

    def _episodes(self, batches: Sequence[Batch], random: Generator) -> Iterator[Episode]:
        """Sample every micro-batch and choose the steps to train, the same for all."""
        stds: dict[int, torch.Tensor] = {}
        weight = 1.0
        for batch in batches:
            with self._halves(batch.pipe, len(batch.prompts)) as halves:
                sampled = batch.sample(record=True)
            if halves:
                halves.check_order(sampled.steps[-1].prediction)
            if not stds:
                found = {i: step_std(batch.pipe, step) for i, step in enumerate(sampled.steps)}
                noisy = [i for i, std in found.items() if std > LEAST]
                chosen = sorted(random.choice(noisy, self.steps or len(noisy), replace=False).tolist())
                stds = {i: found[i] for i in chosen}
                weight = 1 / len(chosen) if self.average else len(noisy) / len(chosen)
            with torch.no_grad():
                rewards = batch.score(sampled.images)
                values, logs = batch.terms.values(sampled.images, batch.prompts, rewards)
                steps = {i: sampled.steps[i] for i in stds}
                old = {i: self._log_prob(batch.pipe, step, step.next_sample, stds[i]) for i, step in steps.items()}
            blind = [replace(step, prediction=torch.empty(0)) for step in sampled.steps]
            slim = replace(sampled, images=sampled.images.new_empty(0), steps=blind)
            yield Episode(Trajectory(batch, slim), rewards, values, logs, stds, old, weight)

    def _advantages(self, update: Update, episodes: Sequence[Episode]) -> torch.Tensor:
        """Of all images of the update, (N,)."""
        values = update.everywhere([episode.values for episode in episodes])
        found = advantages(values, update.prompts, self.baseline, self.normalize, self.advantage_clip)
        return found.to(values)

    def _outcomes(self, episode: Episode, found: torch.Tensor, off: list[torch.Tensor]) -> Iterator[Outcome]:
        """The parts of a micro-batch's loss, one for each step.

        Args:
            found: its advantages, (B,).
            off: gets for each step how far its ratios are from 1.
        """
        trajectory, terms = episode.trajectory, episode.trajectory.batch.terms
        rewards: torch.Tensor | None = episode.rewards
        logs = {**episode.logs, "idle": (found == 0).float().mean()}
        with self._halves(trajectory.batch.pipe, len(found)):
            for index in episode.log_probs:
                outcome, ratio = self._at(episode, index, found)
                off.append((ratio - 1).abs().max())
                yield replace(outcome, rewards=rewards, logs={**outcome.logs, **logs})
                rewards, logs = None, {}
            yield from terms.apart(trajectory, episode.log_probs)

    def _nothing(self, episode: Episode) -> Outcome:
        """What a micro-batch without advantages adds to the loss."""
        ones = torch.ones_like(episode.rewards)
        logs = {**episode.logs, **self._logs(ones), "idle": ones.mean()}
        return Outcome(ones.new_zeros((), requires_grad=True), episode.rewards, logs)

    def _at(self, episode: Episode, index: int, found: torch.Tensor) -> tuple[Outcome, torch.Tensor]:
        """What one step adds to the loss, and its ratios, (B,)."""
        trajectory, batch = episode.trajectory, episode.trajectory.batch
        again = replay(batch.pipe, trajectory.sampled, index, grad=True)
        recorded = trajectory.sampled.steps[index].next_sample
        now = self._log_prob(batch.pipe, again, recorded, episode.stds[index])
        ratio = (now - episode.log_probs[index]).exp()
        clipped = ratio.clamp(1 - self.clip_range, 1 + self.clip_range)
        gain = torch.minimum(ratio * found, clipped * found).mean()
        penalty, logs = batch.terms.joined(trajectory, {index: again}, episode.log_probs)
        share = 1 / len(episode.log_probs)
        logs |= {name: value * share for name, value in self._logs(ratio.detach()).items()}
        return Outcome(penalty - episode.weight * gain.float(), logs=logs), ratio.detach()

    def _log_prob(self, pipe: Any, step: Step, sample: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        """Of x', (B,), under the law of a step."""
        return log_prob(sample, step_mean(pipe, step, step.prediction), std, average=self.average)

    def _logs(self, ratio: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "approx_kl": ratio.log().square().mean().float() / 2,
            "clip_fraction": ((ratio - 1).abs() > self.clip_range).float().mean(),
            "ratio_deviation": (ratio - 1).abs().mean().float(),
        }

    def _halves(self, pipe: Any, images: int) -> AbstractContextManager[Halves | None]:
        return nullcontext() if self.unconditional_gradient else conditional_gradient(pipe, images)

    def _check_parts(self, count: int) -> None:
        if count % self.minibatches:
            raise ValueError(
                f"training.objective.minibatches is {self.minibatches}, among which the {count} micro-batches of a "
                "process cannot be shared out evenly: change training.micro_batch_size"
            )

    def _check_on_policy(self, off: Sequence[torch.Tensor]) -> None:
        worst = float(torch.stack(list(off)).max()) if off else 0.0
        if not worst <= TOLERANCE * self.clip_range:
            raise TrainingError(
                f"the ratio of probabilities must be 1 for images that were just sampled, but is off by {worst:.1e}, "
                f"more than {TOLERANCE:.0%} of clip_range: the denoiser does not repeat itself. Switch off its dropout "
                "(lora_dropout), choose deterministic kernels (torch.use_deterministic_algorithms), or train in float32"
            )
