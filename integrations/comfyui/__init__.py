"""sfumato for ComfyUI: annealed guidance between a base and a tuned model. See README.md."""

try:
    import sfumato  # noqa: F401
except ImportError as error:
    raise ImportError(
        "the sfumato nodes need the package sfumato in ComfyUI's Python, without its dependencies: "
        "python -m pip install --no-deps PATH_TO_SFUMATO"
    ) from error

from .nodes import BlendLora, BlendModels

NODE_CLASS_MAPPINGS = {"SfumatoBlendLora": BlendLora, "SfumatoBlendModels": BlendModels}
NODE_DISPLAY_NAME_MAPPINGS = {
    "SfumatoBlendLora": "Annealed guidance (model + LoRA)",
    "SfumatoBlendModels": "Annealed guidance (two models)",
}
__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
