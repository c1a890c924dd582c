"""How both denoisers are trained: what an update sees, and when state, pipeline and preview are written.

The learning rate is constant and decays at the end (WSD), so the end can be moved: a run that is interrupted
continues from its last state, also with another number of updates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from tqdm import tqdm

from tools.emoji.common import Trainee, batches, rate, read_json, step_generator, write_json
from tools.emoji.pictures import Bundled
from tools.emoji.words import drawn_answers

Backward = Callable[[torch.Tensor, int, torch.Generator], float]


@dataclass(frozen=True)
class Course:
    """Updates, images per update, and the learning rate's height, rise and share of decay."""

    model: Bundled
    steps: int
    batch: int
    peak: float
    warmup: int
    tail: float
    focus: int  # updates on all artwork; after them only what the pipeline is asked to draw
    seed: int
    save: int  # updates between two writings of the state
    show: int  # updates between two exports with their preview

    def done(self) -> bool:
        """Whether the exported pipeline has had its updates."""
        facts = self.model.folder / "training.json"
        return facts.exists() and read_json(facts)["updates"] >= self.steps

    def run(self, trainee: Trainee, rows: list[dict], backward: Backward, export: Callable[[], None]) -> None:
        """Train from the trainee's last state to the end.

        Args:
            rows: the data set's, by whose captions the last part of the training is narrowed.
            backward: from row indices, the number of the update and its randomness, leaves the gradient on the
                module and returns the loss.
            export: writes the averaged weights as a pipeline folder.
        """
        trainee.load()
        start = trainee.facts["step"]
        core = torch.tensor([i for i, row in enumerate(rows) if row["caption"] in drawn_answers()])
        broad = batches(len(rows), self.batch, self.seed, start)
        narrow = batches(len(core), self.batch, self.seed + 2, max(0, start - self.focus))
        name, running = self.model.folder.name, None
        for step in (bar := tqdm(range(start, self.steps), desc=name, initial=start, total=self.steps, mininterval=10)):
            chosen = next(broad) if step < self.focus else core[next(narrow)]
            loss = backward(chosen, step, step_generator(self.seed, step))
            trainee.step(rate(step, self.steps, self.peak, self.warmup, self.tail))
            running = loss if running is None else 0.99 * running + 0.01 * loss
            bar.set_postfix(loss=f"{running:.4f}", refresh=False)
            if (step + 1) % self.save == 0:
                trainee.save()
            if (step + 1) % self.show == 0:
                self.publish(trainee, export)
        trainee.save()
        self.publish(trainee, export)

    def publish(self, trainee: Trainee, export: Callable[[], None]) -> None:
        """Write the pipeline, what it has had so far, and a preview."""
        export()
        step = trainee.facts["step"]
        write_json(self.model.folder / "training.json", {"updates": step, "batch": self.batch, "broad": self.focus})
        self.model.preview(step)
