"""Encoders of transformers: tokens become cells, weights come from safetensors alone, a saved one needs no hub."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepemd.errors import InputError
from deepemd.model import DeepEMD
from deepemd.nodes import FCN, backbone

transformers = pytest.importorskip("transformers", reason="pip install 'deepemd[transformers]'")

from deepemd.nodes.transformer import FAMILIES, Transformer, transformer  # noqa: E402 (after the skip)

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
MAPS = {"hidden_sizes": [8, 8, 16, 32], "depths": [1, 1, 1, 1]}
# of each family: a tiny one's settings, the pixels of a cell's side, tokens that are no patches
SETTINGS: dict[str, tuple[dict[str, Any], int, int]] = {
    "dinov2": ({**TINY, "patch_size": 14, "image_size": 56}, 14, 1),
    "dinov2_with_registers": ({**TINY, "patch_size": 14, "image_size": 56, "num_register_tokens": 3}, 14, 4),
    "dinov3_vit": ({**TINY, "patch_size": 16, "image_size": 64, "num_register_tokens": 4}, 16, 5),
    "vit": ({**TINY, "patch_size": 16, "image_size": 32}, 16, 1),
    "dinov3_convnext": (MAPS, 32, 1),
    "convnext": (MAPS, 32, 0),
    "convnextv2": (MAPS, 32, 0),
    "resnet": ({**MAPS, "embedding_size": 8}, 32, 0),
}


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A family and a tiny model of it, as transformers itself saves one."""
    kind = request.param
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SETTINGS[kind][0])
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / kind)
    return kind, tmp_path / kind


every = pytest.mark.parametrize("made", FAMILIES, indirect=True)
dinov2 = pytest.mark.parametrize("made", ["dinov2"], indirect=True)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@every
def test_maps_are_the_librarys_last_hidden_state(made: tuple[str, Path]) -> None:
    kind, folder = made
    _, cell, special = SETTINGS[kind]
    images = noise(2, 3, 3 * cell, 5 * cell)
    maps = transformer(folder, side=None)(images)
    assert maps.shape == (2, transformer(folder).channels, 3, 5)

    whole = transformers.AutoModel.from_pretrained(folder).eval()
    positions = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        state = whole(images, **positions).last_hidden_state
    for row in range(3):
        for column in range(5):
            theirs = state[:, special + 5 * row + column] if state.ndim == 3 else state[:, :, row, column]
            torch.testing.assert_close(maps[:, :, row, column], theirs)


@every
def test_a_planted_patch_moves_its_own_cell_most(made: tuple[str, Path]) -> None:
    kind, folder = made
    cell = SETTINGS[kind][1]
    encoder = transformer(folder, side=None)
    plain = 0.1 * noise(1, 3, 4 * cell, 4 * cell)
    with torch.no_grad():
        for row, column in ((0, 1), (1, 3), (3, 2)):
            planted = plain.clone()
            planted[:, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = noise(3, cell, cell)
            moved = (encoder(planted) - encoder(plain)).norm(dim=1)[0]  # (4, 4)
            assert divmod(int(moved.argmax()), 4) == (row, column)


@every
def test_a_saved_model_is_built_again_from_its_folder_alone(made: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = made
    model = DeepEMD(transformer(folder, side=2), FCN((1,)), image_size=96, resize=96).eval()
    saved = model.save(tmp_path / "saved")
    for path in folder.iterdir():
        path.unlink()
    again = DeepEMD.load(saved)
    images = noise(2, 3, 96, 96).sigmoid()
    assert again.config == model.config == json.loads(json.dumps(model.config))
    assert again.embed(images).shape == (2, 5, model.backbone.channels)
    assert torch.equal(again.embed(images), model.embed(images))
    assert again.config["backbone"]["model"]["model_type"] == kind


@dinov2
def test_weights_under_other_names_ask_for_the_version_that_saved_them(made: tuple[str, Path], tmp_path: Path) -> None:
    saved = DeepEMD(transformer(made[1]), image_size=56, resize=56).save(tmp_path / "saved")
    tensors = load_file(saved / "model.safetensors")
    save_file(
        {name.replace("layernorm", "norm"): tensor for name, tensor in tensors.items()}, saved / "model.safetensors"
    )
    config = json.loads((saved / "config.json").read_text())
    assert config["backbone"]["version"] == transformers.__version__
    config["backbone"]["version"] = "5.0.1"
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"saved under transformers 5\.0\.1: install that version"):
        DeepEMD.load(saved)


@dinov2
def test_tokens_are_averaged_to_few(made: tuple[str, Path]) -> None:
    folder = made[1]
    images = noise(1, 3, 56, 84)
    whole = transformer(folder, side=None)(images)  # (1, C, 4, 6)
    few = transformer(folder, side=2)(images)
    torch.testing.assert_close(few, whole.unflatten(2, (2, 2)).unflatten(4, (2, 3)).mean((3, 5)))
    assert transformer(folder, side=5)(images).shape[-2:] == (4, 5)
    assert torch.equal(transformer(folder, side=6)(images), whole)


def test_a_checkpoint_with_a_head_is_an_encoder_too(tmp_path: Path) -> None:
    config = transformers.AutoConfig.for_model("dinov2", **SETTINGS["dinov2"][0], num_labels=5)
    classifier = transformers.Dinov2ForImageClassification(config).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    encoder = transformer(tmp_path / "classifier", side=None)
    images = noise(1, 3, 56, 56)
    tokens = classifier.dinov2(images).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(images).flatten(2).transpose(1, 2), tokens)
    assert not {"id2label", "label2id", "architectures"} & set(encoder.config["model"])


@dinov2
def test_half_precision_weights_compute_in_float32(made: tuple[str, Path], tmp_path: Path) -> None:
    transformers.AutoModel.from_pretrained(made[1], dtype=torch.float16).save_pretrained(tmp_path / "half")
    assert load_file(tmp_path / "half" / "model.safetensors")["layernorm.weight"].dtype == torch.float16
    assert transformer(tmp_path / "half")(noise(1, 3, 56, 56)).dtype == torch.float32


@dinov2
def test_loading_is_silent(made: tuple[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    before = transformers.utils.logging.get_verbosity()
    transformer(made[1])
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == before
    assert transformers.utils.logging.is_progress_bar_enabled()


@dinov2
def test_damaged_weights_are_explained(made: tuple[str, Path]) -> None:
    weights = made[1] / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"\0" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged, truncated or of another architecture"):
            transformer(made[1])
    weights.write_bytes(content)
    tensors = load_file(weights)
    del tensors["layernorm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights are not in the file, layernorm\.weight the first"):
        transformer(made[1])
    save_file({**tensors, "layernorm.weight": torch.ones(7)}, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match="damaged, truncated or of another architecture"):
        transformer(made[1])


@dinov2
def test_a_pickle_is_refused(made: tuple[str, Path]) -> None:
    tensors = load_file(made[1] / "model.safetensors")
    (made[1] / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"no weights, model\.safetensors is expected and nothing is there"):
        transformer(made[1])
    torch.save(tensors, made[1] / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pytorch_model\.bin, a pickle"):
        transformer(made[1])


@dinov2
def test_code_in_a_folder_is_not_run(made: tuple[str, Path]) -> None:
    config = json.loads((made[1] / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (made[1] / "config.json").write_text(json.dumps(config))
    (made[1] / "evil.py").write_text("raise SystemExit('this code was run')")
    assert "auto_map" not in transformer(made[1]).config["model"]


@dinov2
def test_settings_that_make_no_model_are_explained(made: tuple[str, Path]) -> None:
    path = made[1] / "config.json"
    good = json.loads(path.read_text())

    def refused(**changed: Any) -> str:
        path.write_text(json.dumps({**good, **changed}))
        with pytest.raises(InputError) as caught:
            transformer(made[1])
        return str(caught.value)

    assert "model_type is 'bert': choose one of convnext" in refused(model_type="bert")
    assert "model_type is ['dinov2']" in refused(model_type=["dinov2"])
    assert "hidden_size" in refused(hidden_size="wide")
    assert "RGB is needed" in refused(num_channels=1)
    path.write_text("{")
    with pytest.raises(InputError, match="damaged, not JSON"):
        transformer(made[1])
    with pytest.raises(InputError, match="side is 0"):
        Transformer(good, side=0)
    with pytest.raises(InputError, match="does not take these settings"):
        backbone("transformers", sides=7)


@dinov2
def test_images_smaller_than_a_patch_are_explained(made: tuple[str, Path]) -> None:
    with pytest.raises(InputError, match="images of 13 x 40 are too small for dinov2"):
        transformer(made[1])(noise(1, 3, 13, 40))


@dinov2
def test_gradients_reach_the_patches(made: tuple[str, Path]) -> None:
    model = DeepEMD(transformer(made[1], side=2), image_size=56, resize=56).train()
    model(noise(2, 3, 56, 56).sigmoid(), noise(3, 3, 56, 56).sigmoid(), n_way=2).square().sum().backward()
    gradient = model.backbone.model.embeddings.patch_embeddings.projection.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@dinov2
def test_without_the_library_a_saved_model_says_what_to_install(made: tuple[str, Path], tmp_path: Path) -> None:
    saved = DeepEMD(transformer(made[1]), image_size=56, resize=56).save(tmp_path / "saved")
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from deepemd import DeepEMD, InputError\n"
        "try: DeepEMD.load(sys.argv[1])\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(saved)], check=True, capture_output=True, text=True)
    assert "pip install 'deepemd[transformers]'" in done.stdout
