"""Everything that touches diffusers and peft: any pipeline made differentiable, replayable and guided.

`adapters` switches between base and tuned weights, `guidance` blends the two while sampling, `rollout` runs a pipeline
with or without gradient, whole or from a step on, and replays single steps, `prefix` makes steps without gradient
cheaper, `predictions` turns what a step predicted into an image and back, `stochastic` gives the law of a step and its
log-probability, `sde` makes the steps of flow models stochastic, `latents` encodes and decodes, `plan` looks ahead,
`prompts` remembers encoded prompts, `trained` puts on what a training left. There is no code per pipeline family: the
pipeline's own call is the sampler, the denoiser's `forward` and the scheduler's `step` are the only seams.
"""
