"""Writes the model card from evaluation.json."""

import os

from tools.emoji.common import ASSETS, read_json
from tools.emoji.words import CATEGORIES, EMOJI, drawn, drawn_answers, entries

HEAD = """---
license: other
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, emoji, demonstration]
---

# emoji-64

A small, genuine latent-diffusion text-to-image model that ships with sfumato: {unet:.1f} M parameters of UNet,
an autoencoder, a CLIP text encoder and a DDIM scheduler in the standard `StableDiffusionPipeline` layout. It draws
64x64 emoji from short English prompts in three styles. It exists to show, in minutes and on a CPU, what reward
tuning does to diversity and how to get it back: most prompts have several right answers.

```python
from sfumato import emoji64

pipe = emoji64.demo_pipeline()
pipe(["fruit", "cat face, fluent style"], num_inference_steps={steps}, guidance_scale={guidance}).images
```

Plain `StableDiffusionPipeline.from_pretrained(folder)` loads it as well.

![Samples](grid.png)

## Prompts

{names} names ("red apple"), {subcategories} subcategories ("fruit") and {categories} categories ("food"), each with
", noto style", ", twemoji style" or ", fluent style" behind it if wanted. `prompts.json` lists them with the
subcategories that answer them. Words outside the list mean nothing to the model.

Measured with DDIM, {steps} steps and guidance scale {guidance}; the demonstrations use 12 and 20 steps.
"""

MADE = """
## How it was made

`SFUMATO_EMOJI_ASSETS=build/emoji64 make emoji` repeats everything in a fresh folder (without the variable, stages
whose results lie here already are skipped): it fetches the three packages with `npm pack`, renders {emoji} emoji of
three vendors at 64x64 on white, holds out {held} of {total} (emoji, vendor) pairs from every model, and trains

1. the autoencoder (4 channels of 16x16, no perceptual loss),
2. the scorer, a small `CLIPModel`, contrastively on the same pairs,
3. the judge, a convolutional classifier of subcategory and style with its own seed and architecture,
4. the UNet with its text encoder (started from the scorer's text tower), velocity prediction, {updates:,} updates of
   {batch}, constant learning rate with a decay at the end, moving average of the weights. The first {broad:,}
   updates use all artwork, the others only the emoji that the model is asked to draw.

A caption is the name (50 %), the subcategory (30 %), a category (10 %) or nothing (10 %); half of them name the
style. Seeds are fixed and interrupted runs continue. Floating-point sums differ between machines, so the
figures below come out close, not to the digit. We allow 0.1 for accuracies, 0.5 dB for the autoencoder and 20 % for
the Frechet distance. A second run of `make emoji` from nothing, 1 h 42 min beside other work on two cores, differed
from the first by at most 0.08 in accuracies, 0.15 dB and 10 %.
"""

LICENCE = """
## Artwork and licence

The weights are trained on, and their pictures resemble, artwork of

* **Noto Emoji** by Google: SIL Open Font License 1.1 and Apache License 2.0 (`emoji-datasource-google` 16.0.0),
* **Twemoji** by Twitter, Inc and other contributors: CC-BY 4.0 (`emoji-datasource-twitter` 16.0.0),
* **Fluent Emoji** by Microsoft: MIT (`@lobehub/fluent-emoji-3d` 1.1.0).

Keep this attribution when you pass the weights or pictures on. The code is under sfumato's licence.

## Limits

The model was trained for little more than an hour on two cores of a CPU. Hearts, faces, fruit, flowers, cars, buses
and boats come out clearly; small animals, penguins, airplanes and thin things stay vague. It knows no people, flags,
symbols or text, and no words beyond its list: a laboratory animal, not a product. The judge was measured on emoji of
which it had seen the other two styles; where it errs on real pictures it errs on samples as well.
"""


def percent(value: float) -> str:
    """0.123 as "12 %"."""
    return f"{100 * value:.0f} %"


def quality(facts: dict) -> str:
    """The tables of measured quality."""
    real, samples, frechet = facts["real"], facts["samples"], facts["frechet_distance_in_judge_features"]
    lines = [
        "\n## Measured quality\n",
        "| pictures | number | judge: right subcategory | judge: right style |\n|---|---:|---:|---:|",
        f"| real, held out | {real['held_out_images']} | {percent(real['judge_subcategory_accuracy'])} "
        f"| {percent(real['judge_style_accuracy'])} |",
    ]
    for group, row in samples.items():
        style = percent(row["style_accuracy"]) if "style_accuracy" in row else ""
        right = percent(row["subcategory_accuracy"])
        lines.append(f"| samples: {group.replace('_', ' ')} | {row['samples']} | {right} | {style} |")
    lines += [
        "\n| Frechet distance in the judge's features | |\n|---|---:|",
        f"| samples to training pictures | {frechet['samples_to_training']:.2f} |",
        f"| {real['held_out_images']} samples to training pictures "
        f"| {frechet['as_many_samples_as_held_out_to_training']:.2f} |",
        f"| {real['held_out_images']} held-out to training pictures | {frechet['held_out_to_training']:.2f} |",
        "",
        f"Autoencoder: {real['autoencoder_psnr_training_db']:.1f} dB on training pictures, "
        f"{real['autoencoder_psnr_held_out_db']:.1f} dB on held-out ones. Scorer on held-out pictures: the right one "
        f"of all names first in {percent(real['scorer_name_top1'])}, among the first five in "
        f"{percent(real['scorer_name_top5'])}; right subcategory {percent(real['scorer_subcategory_accuracy'])}, "
        f"right style {percent(real['scorer_style_accuracy'])}.",
        "",
        f"Diversity: over subcategory and category prompts without style, the entropy of the judged style is "
        f"{facts['mean_style_entropy']:.2f} of its maximum (12 samples each; `evaluation.json` has every prompt).",
    ]
    return "\n".join(lines) + "\n"


def text() -> str:
    """The whole card."""
    facts = read_json(ASSETS / "evaluation.json")
    real, settings = facts["real"], facts["settings"]
    known = drawn_answers()
    words = {
        "names": len(drawn()),
        "subcategories": len(known.keys() & EMOJI.keys()),
        "categories": len(known.keys() & CATEGORIES.keys()),
    }
    head = HEAD.format(
        unet=facts["unet_parameters"] / 1e6,
        steps=settings["num_inference_steps"],
        guidance=settings["guidance_scale"],
        **words,
    )
    held, seen = real["held_out_images"], real["training_images"]
    made = MADE.format(emoji=len(entries()), held=held, total=held + seen, **facts["training"])
    return head + made + quality(facts) + LICENCE


def run() -> None:
    """Write README.md beside the model."""
    partial = ASSETS / "README.md.partial"
    partial.write_text(text(), encoding="utf-8")
    os.replace(partial, ASSETS / "README.md")


if __name__ == "__main__":
    run()
