"""Inception, LPIPS and DreamSim against the packages that define them (golden/make_extractors.py), and conversion."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sfumato.convert import convert_weights
from sfumato.metrics import (
    DreamSimFeatures,
    InceptionFeatures,
    LPIPSFeatures,
    build_extractor,
    extract,
    mean_pairwise_distance,
)
from sfumato.metrics.extractors.inception import Inception
from sfumato.weights import load_weights, read_published
from tests.golden import seeded

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "extractors.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Converted weights of all kinds."""
    folder = tmp_path_factory.mktemp("weights")
    classifier = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(seeded.fill(Inception().state_dict()) | classifier, folder / "inception.pth")
    convert_weights("inception", [folder / "inception.pth"], folder / "inception.safetensors")
    for net in seeded.LPIPS:
        trunk, linear = seeded.lpips(net)
        torch.save(trunk | {"classifier.1.weight": torch.zeros(2, 2)}, folder / f"{net}-trunk.pth")
        torch.save(linear, folder / f"{net}.pth")
        convert_weights("lpips", [folder / f"{net}-trunk.pth", folder / f"{net}.pth"], folder / f"{net}.safetensors")
    for lora in seeded.DREAMSIM:
        models = seeded.dreamsim(folder / f"models-{lora}", lora)
        convert_weights("dreamsim", [models], folder / f"{lora}.safetensors")
    return folder


def golden(start: str) -> list[tuple[tuple[int, int], torch.Tensor]]:
    """(height, width) and the packages' answers."""
    found = [(name.rsplit("-", 1)[1].split("x"), value) for name, value in GOLDEN.items() if name.startswith(start)]
    assert found
    return [((int(height), int(width)), value) for (height, width), value in found]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_inception_is_torch_fidelitys(folder: Path) -> None:
    extractor = InceptionFeatures(folder / "inception.safetensors")
    for size, expected in golden("inception"):
        ours = extractor(seeded.pictures(2, *size).float() / 255)
        assert relative(ours, expected) < 1e-5
        assert relative(expected[:1], expected[1:]) > 1e-2  # the pictures differ far more than the two packages do


def test_inception_rounds_to_8_bit(folder: Path) -> None:
    extractor = InceptionFeatures(folder / "inception.safetensors")
    images = seeded.pictures(1, 64, 64).float() / 255
    assert torch.equal(extractor(images), extractor((images + 0.4 / 255).clamp(max=1)))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_squared_distance_is_lpips(folder: Path, net: str) -> None:
    extractor = LPIPSFeatures(folder / f"{net}.safetensors")
    assert extractor.distance == "squared"
    for size, expected in golden(f"lpips-{net}"):
        features = extractor(seeded.pictures(3, *size).float() / 255).double()
        ours = torch.stack([(features - row).square().sum(1) for row in features])
        assert relative(ours, expected) < 1e-5
        mean = mean_pairwise_distance(features, metric="squared")
        assert mean == pytest.approx(float(expected.sum() / 6), rel=1e-5)


def test_lpips_features_have_a_bounded_length(folder: Path) -> None:
    extractor = LPIPSFeatures(folder / "alex.safetensors")
    large = extractor(torch.rand(1, 3, 300, 270))
    assert large.shape == extractor(torch.rand(1, 3, 284, 256)).shape
    assert extractor(torch.rand(1, 3, 256, 256)).shape == (1, 640128)
    assert LPIPSFeatures(folder / "alex.safetensors", size=None)(torch.rand(1, 3, 300, 270)).shape > large.shape
    with pytest.raises(ValueError, match="at least 31 pixels, not 30x64"):
        extractor(torch.rand(1, 3, 30, 64))
    assert extractor(torch.rand(1, 3, 31, 64)).isfinite().all()


@pytest.mark.parametrize("lora", seeded.DREAMSIM)
def test_dreamsim_is_the_packages(folder: Path, lora: str) -> None:
    extractor = DreamSimFeatures(folder / f"{lora}.safetensors")
    for size, expected in golden(f"dreamsim-{lora}"):
        ours = extractor(seeded.pictures(2, *size).float() / 255)
        resized = 1e-3  # a few pixels differ by one level, and these random networks amplify it
        assert relative(ours, expected) < (1e-5 if size == (224, 224) else resized)
        assert relative(expected[:1], expected[1:]) > 0.1


def extractors(folder: Path) -> list[tuple[str, str]]:
    names = ("inception", "alex", "ensemble_lora")
    kinds = ("inception", "lpips", "dreamsim")
    return [(f"{kind}:{folder / name}.safetensors", kind) for kind, name in zip(kinds, names, strict=True)]


def test_batches_do_not_matter_and_repetition_is_exact(folder: Path) -> None:
    images = seeded.pictures(2, 64, 80).float() / 255
    for spec, _ in extractors(folder):
        extractor = build_extractor(spec)
        together = extract(extractor, images, batch_size=2)
        assert torch.equal(together, extract(extractor, images, batch_size=2))
        assert relative(extract(extractor, images, batch_size=1), together) < 1e-5


def test_the_fingerprint_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    seen = set()
    for spec, kind in extractors(folder):
        here = build_extractor(spec).fingerprint
        state, metadata = load_weights(spec.partition(":")[2], kind)
        copy = tmp_path / kind
        copy.mkdir(exist_ok=True)
        save_file(state, copy / "model.safetensors", metadata=metadata)
        assert build_extractor(f"{kind}:{copy}").fingerprint == here
        state[min(state)].view(-1)[0] += 0.125
        save_file(state, copy / "model.safetensors", metadata=metadata)
        seen |= {here, build_extractor(f"{kind}:{copy}").fingerprint}
    assert len(seen) == 2 * len(extractors(folder))
    assert LPIPSFeatures(folder / "alex.safetensors", size=None).fingerprint not in seen


def test_a_hub_id_is_asked_for_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        return str(folder / "alex.safetensors")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert build_extractor("lpips:me/lpips-0.1").fingerprint == LPIPSFeatures(folder / "alex.safetensors").fingerprint
    assert asked == [("me/lpips-0.1", "model.safetensors")]


def test_a_converted_file_says_what_it_is(folder: Path) -> None:
    with safe_open(folder / "alex.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["kind"] == "lpips"
    hashes = json.loads(metadata["sha256"])
    assert hashes.keys() == {"alex.pth", "alex-trunk.pth"}
    assert all(len(value) == 64 for value in hashes.values())
    assert "fc.weight" not in load_file(folder / "inception.safetensors")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    evil = tmp_path / "evil.pth"
    torch.save({"weight": Evil(tmp_path / "harm")}, evil)
    with pytest.raises(ValueError, match=r"evil\.pth is no checkpoint .*: it asks for getattr, which may be code$"):
        convert_weights("inception", [evil], tmp_path / "out.safetensors")
    evil.write_bytes(pickle.dumps(Evil(tmp_path / "harm")))
    with pytest.raises(ValueError, match=r"evil\.pth is no checkpoint"):
        read_published(evil)
    assert not (tmp_path / "harm").exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"a pointer to the file, not the file", b"", b"PK\x03\x04"])
def test_what_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pth is no checkpoint .*: it is damaged, or another kind of file$"):
        read_published(tmp_path / "model.pth")


def test_wrong_sources_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(ValueError, match="no kind of weights 'clip': choose one of inception, lpips, dreamsim"):
        convert_weights("clip", [folder / "alex.pth"], out)
    with pytest.raises(ValueError, match=r"must end with \.safetensors"):
        convert_weights("inception", [folder / "inception.pth"], tmp_path / "out.pth")
    with pytest.raises(ValueError, match="not the weights of FID's Inception"):
        convert_weights("inception", [folder / "alex-trunk.pth"], out)
    with pytest.raises(ValueError, match=r"lacks lin0\.model\.1\.weight: give torchvision's checkpoint and"):
        convert_weights("lpips", [folder / "alex-trunk.pth"], out)
    with pytest.raises(ValueError, match="not the weights of LPIPS's AlexNet or VGG16"):
        convert_weights("lpips", [folder / "alex.pth"], out)
    with pytest.raises(ValueError, match=r"lin1\.model\.1\.weight is not LPIPS's"):
        convert_weights("lpips", [folder / "alex-trunk.pth", folder / "vgg.pth"], out)
    with pytest.raises(ValueError, match="none of DreamSim's LoRA folders: give one of ensemble_lora"):
        convert_weights("dreamsim", [folder], out)
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds a list, not tensors by name"):
        convert_weights("inception", [tmp_path / "list.pth"], out)
    with pytest.raises(FileNotFoundError):
        convert_weights("inception", [tmp_path / "absent.pth"], out)
    assert not out.exists()


def test_a_lora_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    lora = seeded.dreamsim(tmp_path / "models", "dino_vitb16_single_lora")
    weights = load_file(lora / "adapter_model.safetensors")
    name = min(weights)
    save_file({**weights, name: weights[name][:, :5].contiguous()}, lora / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="does not fit the backbone"):
        convert_weights("dreamsim", [lora], tmp_path / "out.safetensors")
    save_file({**weights, "more.weight": torch.zeros(2)}, lora / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"holds more\.weight, which none of the backbones takes"):
        convert_weights("dreamsim", [lora], tmp_path / "out.safetensors")
    (lora / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="run the package dreamsim once"):
        convert_weights("dreamsim", [lora], tmp_path / "out.safetensors")


def test_wrong_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not safetensors: run `sfumato convert-weights inception"):
        build_extractor(f"inception:{folder / 'inception.pth'}")
    with pytest.raises(ValueError, match="holds weights of the kind lpips, not inception"):
        build_extractor(f"inception:{folder / 'alex.safetensors'}")
    for absent in ("absent.safetensors", "absent.pth", "."):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            build_extractor(f"lpips:{tmp_path / absent}")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes((folder / "alex.safetensors").read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged"):
        build_extractor(f"lpips:{damaged}")
    save_file({"weight": torch.zeros(2)}, damaged)
    with pytest.raises(ValueError, match="does not say its branches"):
        build_extractor(f"dreamsim:{damaged}")
