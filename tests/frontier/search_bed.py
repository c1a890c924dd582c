"""Gaussian worlds under any schedule in closed form, written out once more: what a search is measured on.

Base N(m_b, v_b) and tuned N(m_r, v_r), 10 Euler steps of the probability-flow ODE in x0 + sigma ε. The reward is linear
in x, so its mean is that of the samples; diversity is 1 + their standard deviation, 1 if all are alike.
"""

import itertools

import numpy as np

from sfumato.frontier.search_space import guidance
from sfumato.schedules import schedule

PROMPTS = [f"prompt {i}" for i in range(12)]
SIGMAS = np.append(np.geomspace(20, 0.05, 10), 0)
U = np.linspace(0, 1, 10)
DRAW = np.random.default_rng(0)
MEAN_B, VAR_B = DRAW.normal(size=12), DRAW.uniform(0.6, 1.4, 12)
MEAN_R, VAR_R = MEAN_B + DRAW.uniform(0.7, 1.6, 12), VAR_B * DRAW.uniform(0.03, 0.2, 12)


def law(g, blend):
    """Reward and diversity (..., 12) of every prompt for weights g (..., 10)."""
    g = np.asarray(g, float)
    mean, var = np.zeros((*g.shape[:-1], 12)), np.full((*g.shape[:-1], 12), SIGMAS[0] ** 2)
    for i in range(10):
        noise, w = SIGMAS[i] ** 2, g[..., i, None]
        if blend == "weights":
            m, v = MEAN_B + w * (MEAN_R - MEAN_B), VAR_B ** (1 - w) * VAR_R**w
            slope, offset = v / (v + noise), m * noise / (v + noise)
        else:
            slope = (1 - w) * VAR_B / (VAR_B + noise) + w * VAR_R / (VAR_R + noise)
            offset = (1 - w) * MEAN_B * noise / (VAR_B + noise) + w * MEAN_R * noise / (VAR_R + noise)
        keep = SIGMAS[i + 1] / SIGMAS[i]
        gain = keep + (1 - keep) * slope
        mean, var = gain * mean + (1 - keep) * offset, gain**2 * var
    return mean, 1 + np.sqrt(var)


def measure(config, prompt):
    """What a search asks for."""
    arguments = guidance(config)
    blend = arguments.pop("blend", "predictions")
    plan = schedule(**arguments)
    reward, diversity = law([plan(u) for u in U], blend)
    i = PROMPTS.index(prompt)
    return float(reward[i]), float(diversity[i])


def everything():
    """Mean reward and diversity of every schedule of the search space that is no table, and of base and tuned."""
    found = []
    for blend in ("predictions", "weights"):
        caps, shapes = np.arange(31) / 20, np.arange(-16, 17) / 4
        curves = [c * (U**s if s > 0 else (1 - U) ** -s) for c, s in itertools.product(caps, shapes)]
        found.append(np.stack([values.mean(-1) for values in law(curves, blend)]))
    ends = np.stack([values.mean(-1) for values in law([0 * U, 0 * U + 1], "weights")])
    return np.concatenate(found, axis=1), ends[:, 0], ends[:, 1]
