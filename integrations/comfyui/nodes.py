"""The nodes: a MODEL and a LoRA, or two MODELs, and a schedule -> a guided MODEL."""

from __future__ import annotations

from typing import Any

from sfumato.grids import CLOCKS
from sfumato.schedules import FORMULAS, Schedule, schedule

from .blending import blended
from .lora import load_patches

SCHEDULE_HELP = "\n".join(f"{name}: {formula}" for name, (formula, _) in FORMULAS.items())
SCHEDULE_INPUTS: dict[str, Any] = {
    "schedule": (list(FORMULAS), {"default": "power", "tooltip": SCHEDULE_HELP}),
    "parameters": (
        "STRING",
        {"default": "p=2", "tooltip": "p=2 | f=0.5 | k=10, m=0.5 | w=1.5 | points=0:0 0.5:0.1 1:0.4"},
    ),
    "cap": ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05, "tooltip": "g is multiplied by this"}),
    "clock": (list(CLOCKS), {"default": "index", "tooltip": "what u, the progress from noise (0) to image (1), is"}),
}
BLENDS = ["predictions", "weights"]


def parse_schedule(name: str, parameters: str, cap: float, clock: str) -> Schedule:
    """A schedule from a node's widgets; parameters are `p=2`, `k=10, m=0.5` or `points=0:0 0.5:0.1 1:0.4`.

    Raises:
        ValueError: they are not of that form, or not those of the schedule.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in parameters.split(","))):
        key, _, value = (text.strip() for text in part.partition("="))
        try:
            pairs = [[float(number) for number in pair.split(":")] for pair in value.split()]
        except ValueError:
            pairs = []
        if not pairs:
            raise ValueError(f"cannot read the parameter {part!r}: write p=2, k=10, m=0.5 or points=0:0 0.5:0.1 1:0.4")
        values[key] = pairs if key == "points" else pairs[0][0]
    return schedule(name, cap=cap, clock=clock, **values)


class _Node:
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "apply"
    CATEGORY = "sfumato"

    @classmethod
    def VALIDATE_INPUTS(cls, schedule: str, parameters: str, cap: float, clock: str) -> bool | str:
        try:
            parse_schedule(schedule, parameters, cap, clock)
        except ValueError as error:
            return str(error)
        return True


class BlendLora(_Node):
    """Annealed guidance between a MODEL and the same MODEL with a LoRA."""

    DESCRIPTION = (
        "Follow the model early and model + LoRA late, so that a reward-tuned LoRA keeps the base's diversity."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        import folder_paths

        lora = {
            "lora_name": (folder_paths.get_filename_list("loras"),),
            "strength": ("FLOAT", {"default": 1.0, "min": -10.0, "max": 10.0, "step": 0.05}),
        }
        blend = {"blend": (BLENDS, {"tooltip": "predictions: two forwards a step. weights: one, base + g LoRA"})}
        return {"required": {"model": ("MODEL",), **lora, **SCHEDULE_INPUTS, **blend}}

    def apply(
        self,
        model: Any,
        lora_name: str,
        strength: float,
        schedule: str,
        parameters: str,
        cap: float,
        clock: str,
        blend: str,
    ) -> tuple[Any]:
        import folder_paths

        tuned = model.clone()
        tuned.add_patches(load_patches(model, folder_paths.get_full_path_or_raise("loras", lora_name)), strength)
        return (blended(model, tuned, parse_schedule(schedule, parameters, cap, clock), blend),)


class BlendModels(_Node):
    """Annealed guidance between two MODELs: one with more LoRAs than the other, or two checkpoints."""

    DESCRIPTION = "Follow the base model early and the tuned model late. Both of one architecture."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        blend = {"blend": (BLENDS, {"tooltip": "weights: only if tuned is base with LoRAs loaded"})}
        return {"required": {"base": ("MODEL",), "tuned": ("MODEL",), **SCHEDULE_INPUTS, **blend}}

    def apply(
        self, base: Any, tuned: Any, schedule: str, parameters: str, cap: float, clock: str, blend: str
    ) -> tuple[Any]:
        return (blended(base, tuned, parse_schedule(schedule, parameters, cap, clock), blend),)
