"""Writes the model cards from evaluation.json."""

import os

from tools.emoji.common import read_json
from tools.emoji.flow import EVERY
from tools.emoji.pictures import FLOW, UNET, Bundled
from tools.emoji.words import CATEGORIES, EMOJI, drawn, drawn_answers, entries

UNET_HEAD = """---
license: other
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion, emoji, demonstration]
---

# emoji-64

A small, genuine latent-diffusion text-to-image model that ships with sfumato: {part:.1f} M parameters of UNet,
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

FLOW_HEAD = """---
license: other
library_name: diffusers
pipeline_tag: text-to-image
tags: [stable-diffusion-3, flow-matching, emoji, demonstration]
---

# emoji-64-flow

The second bundled model of sfumato: flow matching with a multimodal diffusion transformer of {part:.1f} M parameters,
in the standard `StableDiffusion3Pipeline` layout. It draws the same 64x64 emoji from the same prompts as emoji-64,
whose judge, scorer and rewards serve both: for methods that need flow matching, and to see what holds on two
architectures.

```python
from sfumato import emoji64

pipe = emoji64.demo_pipeline("emoji64-flow")
call = {{"num_inference_steps": {steps}, "guidance_scale": {guidance}, "max_sequence_length": 1}}
pipe(["fruit", "cat face, fluent style"], **call).images
```

Plain `StableDiffusion3Pipeline.from_pretrained(folder)` loads it as well. In recipes it is
`pipeline: {{path: emoji64-flow}}` with `sampling: {{arguments: {{max_sequence_length: 1}}}}`. Without
`max_sequence_length=1` the pipeline puts 256 zeros behind the text: the pictures are much the same, but take about
four times as long.

![Samples](grid.png)

## Prompts

Those of emoji-64: {names} names ("red apple"), {subcategories} subcategories ("fruit") and {categories} categories
("food"), each with ", noto style", ", twemoji style" or ", fluent style" behind it if wanted. Words outside the list
mean nothing to the model.

Measured with Euler's method, {steps} steps and guidance scale {guidance}.
"""

UNET_MADE = """
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

FLOW_MADE = """
## How it was made

The last training of `make emoji`, with the data, captions, autoencoder and text tower of emoji-64. The transformer has
6 blocks of width 192, patches of 2x2 and root-mean-square norms of queries and keys; blocks and output start at zero.
It learned velocities, noise minus latent, in {updates:,} updates of {batch} emoji that it is asked to draw, at
stratified logit-normal noise levels, with a constant learning rate that decays at the end and a moving average of the
weights. The first text encoder is the scorer's text tower and was not trained on. The layout wants two more: the second
is one layer of width 8 with random weights, the third a T5 whose output is zero. One update in {every} had the 256
zeros behind the text that a call has by default.

Seeds are fixed and interrupted runs continue; what is said on emoji-64's card of captions and of repetition holds here.
"""

LICENCE = """
## Artwork and licence

The weights are trained on, and their pictures resemble, artwork of

* **Noto Emoji** by Google: SIL Open Font License 1.1 and Apache License 2.0 (`emoji-datasource-google` 16.0.0),
* **Twemoji** by Twitter, Inc and other contributors: CC-BY 4.0 (`emoji-datasource-twitter` 16.0.0),
* **Fluent Emoji** by Microsoft: MIT (`@lobehub/fluent-emoji-3d` 1.1.0).

Keep this attribution when you pass the weights or pictures on. The code is under sfumato's licence.
"""

UNET_LIMITS = """
## Limits

The model was trained for little more than an hour on two cores of a CPU. Hearts, faces, fruit, flowers, cars, buses
and boats come out clearly; small animals, penguins, airplanes and thin things stay vague. It knows no people, flags,
symbols or text, and no words beyond its list: a laboratory animal, not a product. The judge was measured on emoji of
which it had seen the other two styles; where it errs on real pictures it errs on samples as well.
"""

FLOW_LIMITS = """
## Limits

The model saw less than half of the pictures that emoji-64 was trained on. Hearts, faces, cars, buses, tomatoes and
apples come out clearly; most animals, flowers and thin or many-coloured things are blots of the right colours. What is
said on emoji-64's card of its words and of the judge holds here.
"""


def percent(value: float) -> str:
    """0.123 as "12 %"."""
    return f"{100 * value:.0f} %"


def real_row(real: dict) -> str:
    """The judge on real pictures, as a line of the table of samples."""
    style, right = percent(real["judge_style_accuracy"]), percent(real["judge_subcategory_accuracy"])
    return f"| real, held out | {real['held_out_images']} | {right} | {style} |"


def others(real: dict) -> str:
    """What autoencoder and scorer do on real pictures."""
    return (
        f"Autoencoder: {real['autoencoder_psnr_training_db']:.1f} dB on training pictures, "
        f"{real['autoencoder_psnr_held_out_db']:.1f} dB on held-out ones. Scorer on held-out pictures: the right one "
        f"of all names first in {percent(real['scorer_name_top1'])}, among the first five in "
        f"{percent(real['scorer_name_top5'])}; right subcategory {percent(real['scorer_subcategory_accuracy'])}, "
        f"right style {percent(real['scorer_style_accuracy'])}.\n\n"
    )


def quality(facts: dict, real: dict, more: str = "") -> str:
    """The tables of measured quality of one pipeline."""
    frechet = facts["frechet_distance_in_judge_features"]
    lines = [
        "\n## Measured quality\n",
        "| pictures | number | judge: right subcategory | judge: right style |\n|---|---:|---:|---:|",
        real_row(real),
    ]
    for group, row in facts["samples"].items():
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
        f"{more}Diversity: over subcategory and category prompts without style, the entropy of the judged style is "
        f"{facts['mean_style_entropy']:.2f} of its maximum (12 samples each; `evaluation.json` has every prompt).",
    ]
    return "\n".join(lines) + "\n"


def filled(template: str, bundled: Bundled, facts: dict, real: dict) -> str:
    """A template with the numbers of one pipeline in it."""
    known, held = drawn_answers(), real["held_out_images"]
    return template.format(
        part=facts[f"{bundled.part}_parameters"] / 1e6,
        steps=facts["settings"]["num_inference_steps"],
        guidance=facts["settings"]["guidance_scale"],
        names=len(drawn()),
        subcategories=len(known.keys() & EMOJI.keys()),
        categories=len(known.keys() & CATEGORIES.keys()),
        emoji=len(entries()),
        held=held,
        total=held + real["training_images"],
        every=EVERY,
        **facts["training"],
    )


def run() -> None:
    """Write README.md beside each model."""
    real = read_json(UNET.folder / "evaluation.json")["real"]
    for bundled, head, made, more, limits in (
        (UNET, UNET_HEAD, UNET_MADE, others(real), UNET_LIMITS),
        (FLOW, FLOW_HEAD, FLOW_MADE, "", FLOW_LIMITS),
    ):
        facts = read_json(bundled.folder / "evaluation.json")
        parts = [filled(head + made, bundled, facts, real), quality(facts, real, more), LICENCE, limits]
        partial = bundled.folder / "README.md.partial"
        partial.write_text("".join(parts), encoding="utf-8")
        os.replace(partial, bundled.folder / "README.md")


if __name__ == "__main__":
    run()
