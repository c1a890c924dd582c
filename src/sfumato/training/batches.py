"""Which images an update is made of: a function of the seed and the update's number alone."""

from __future__ import annotations

from numpy.random import SeedSequence, default_rng

from sfumato.config import TrainingConfig


def images_of_update(
    prompts: list[str], count: int, seed: int, update: int, images_per_prompt: int = 1
) -> tuple[list[str], list[int]]:
    """A prompt and an image seed for each of `count` images.

    Images of one prompt stand side by side, and no prompt is drawn twice before all have been.
    """
    generator = default_rng([seed, update])
    rounds = -(-count // (len(prompts) * images_per_prompt))
    order = [i for _ in range(rounds) for i in generator.permutation(len(prompts)) for _ in range(images_per_prompt)]
    seeds = SeedSequence([seed, update]).generate_state(count).tolist()
    return [prompts[i] for i in order[:count]], seeds


def micro_batches(config: TrainingConfig, processes: int) -> list[slice]:
    """How an update's images are cut up, before they are shared out among processes.

    Raises:
        ValueError: the parts cannot be shared out evenly, or cut groups of images that have to stay together.
    """
    size = config.micro_batch_size or -(-config.batch_size // processes)
    if processes > 1 and config.batch_size % (size * processes):
        raise ValueError(
            f"training.batch_size is {config.batch_size}, which {processes} processes cannot share evenly in "
            f"micro-batches of {size}: make it a multiple of {size * processes}, or change training.micro_batch_size"
        )
    if config.regularizers.diversity and size % config.images_per_prompt:
        raise ValueError(
            f"micro-batches of {size} cut the groups of {config.images_per_prompt} images that "
            "training.regularizers.diversity compares: make training.micro_batch_size a multiple of images_per_prompt"
        )
    return [slice(start, start + size) for start in range(0, config.batch_size, size)]
