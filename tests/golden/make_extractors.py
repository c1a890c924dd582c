"""Make extractors.safetensors: what the published packages say of seeded pictures, with seeded weights.

In an environment of its own: `pip install torch==2.13.0 torchvision==0.28.0 torch-fidelity==0.4.0 lpips==0.1.4
dreamsim==0.2.1`, the source of facebookresearch/dinov2 on PYTHONPATH, then `python -m tests.golden.make_extractors`.
"""

import json
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path

import lpips
import torch
from dinov2.models.vision_transformer import DinoVisionTransformer
from dreamsim import dreamsim
from dreamsim.feature_extraction import load_clip_as_dino, load_open_clip_as_dino
from dreamsim.feature_extraction.vision_transformer import DINOHead, VisionTransformer
from peft import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.golden import seeded
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

HERE = Path(__file__).parent
PEERS = ("torch", "torchvision", "torch-fidelity", "lpips", "dreamsim", "peft")


class Inception(FeatureExtractorInceptionV3):
    """torch-fidelity's, with seeded weights whatever file it is given."""

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        super().load_state_dict(seeded.fill(self.state_dict()))


def inception(sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """pool3 features of torch-fidelity."""
    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        model = Inception("inception", ["2048"], file.name)
    return {f"inception-{h}x{w}": model(seeded.pictures(2, h, w))[0] for h, w in sizes}


def perceptual(net: str, sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """LPIPS of all pairs of three pictures."""
    trunk, linear = seeded.lpips(net)
    model = lpips.LPIPS(pretrained=False, net=net, pnet_rand=True, verbose=False)
    slices = {name.split(".", 1)[1]: name for name, _ in model.net.named_parameters()}
    model.net.load_state_dict({slices[key.removeprefix("features.")]: value for key, value in trunk.items()})
    model.load_state_dict(linear, strict=False)
    found = {}
    for h, w in sizes:
        images = seeded.pictures(3, h, w).float() / 255
        rows = [model(images, image.expand_as(images), normalize=True).flatten() for image in images]
        found[f"lpips-{net}-{h}x{w}"] = torch.stack(rows)
    return found


def similarity(lora: str) -> dict[str, torch.Tensor]:
    """DreamSim's embeddings of pictures of its own size and of another."""
    narrow = partial(VisionTransformer, embed_dim=seeded.WIDTH, depth=12, num_heads=12, qkv_bias=True)
    narrow = partial(narrow, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
    load_clip_as_dino.vit_base = load_open_clip_as_dino.vit_base = narrow
    with tempfile.TemporaryDirectory() as folder:
        seeded.dreamsim(Path(folder), lora)
        head = {f"module.head.{name}": value for name, value in DINOHead(768, 2048).state_dict().items()}
        head["module.head.last_layer.weight"] = torch.zeros(2048, 256)
        torch.save({"student": head}, Path(folder) / "dino_vitb16_pretrain.pth")
        torch.hub.load = lambda repository, name: _backbone(Path(folder), name, narrow)
        kind = lora.removesuffix("_lora").removesuffix("_single")
        model, preprocess = dreamsim(device="cpu", cache_dir=folder, dreamsim_type=kind)
        written = load_file(Path(folder) / lora / "adapter_model.safetensors")
        assert get_peft_model_state_dict(model).keys() == written.keys()
    found = {}
    for h, w in [(224, 224), (60, 100)]:
        pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in seeded.pictures(2, h, w)]
        found[f"dreamsim-{lora}-{h}x{w}"] = model.embed(torch.cat([preprocess(picture) for picture in pictures]))
    return found


def _backbone(folder: Path, name: str, narrow: partial) -> torch.nn.Module:
    """What torch.hub would give: Meta's own classes."""
    if name == "dinov2_vitb14":
        size = {"embed_dim": seeded.WIDTH, "depth": 12, "num_heads": 12, "img_size": 518, "patch_size": 14}
        model = DinoVisionTransformer(**size, init_values=1.0, block_chunks=0)
        model.load_state_dict(torch.load(folder / "dinov2_vitb14_pretrain.pth", weights_only=True))
        return model
    model = narrow(patch_size=16)
    model.load_state_dict(torch.load(folder / "checkpoints" / "dino_vitbase16_pretrain.pth", weights_only=True))
    return model


@torch.no_grad()
def main() -> None:
    found = inception([(299, 299), (64, 64), (340, 500)])
    found |= perceptual("alex", [(64, 64), (48, 90)]) | perceptual("vgg", [(64, 64)])
    for lora in seeded.DREAMSIM:
        found |= similarity(lora)
    versions = {name: metadata.version(name) for name in PEERS}
    tensors = {name: value.contiguous() for name, value in found.items()}
    save_file(tensors, HERE / "extractors.safetensors", metadata={"versions": json.dumps(versions)})
    (HERE / "extractors.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
