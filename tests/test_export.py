"""Exports: other tools draw the learned pictures, also those that read keys and alpha tensors alone."""

import hashlib
import json
import re
from types import SimpleNamespace

import dit  # noqa: F401  # builds SD3 and Sana
import flow  # noqa: F401  # builds Flux
import pytest
import torch
import unet  # noqa: F401  # builds SD and SDXL
from diffusers import DiffusionPipeline
from diffusers.loaders import FluxLoraLoaderMixin
from families import PROMPT, SEED, load, plain_picture, saved
from peft import PeftModel
from PIL import Image
from safetensors import safe_open

from dualproc_cli.errors import UserError
from dualproc_cli.exporting import export_bundle
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.generator.adapter_formats import kohya_tensors
from dualproc_cli.spec import AdapterSpec, GeneratorSpec

FAMILIES = ("Flux", "StableDiffusion3", "StableDiffusionXL", "StableDiffusion", "Sana")
# diffusers' reader of kohya's names for Flux has the sizes of FLUX.1's single blocks written into it.
DOUBLE = "Flux, double blocks"
KOHYA = (DOUBLE, "StableDiffusionXL", "StableDiffusion")
DOUBLE_BLOCKS = ("add_q_proj", "to_add_out", "ff_context.net.2", "ff.net.0.proj")
FLUX_BLOCKS = {
    "double_blocks_0_img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "double_blocks_0_img_attn_proj": ("attn.to_out.0",),
    "double_blocks_0_img_mlp_0": ("ff.net.0.proj",),
    "double_blocks_0_img_mlp_2": ("ff.net.2",),
    "double_blocks_0_txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "double_blocks_0_txt_attn_proj": ("attn.to_add_out",),
    "double_blocks_0_txt_mlp_0": ("ff_context.net.0.proj",),
    "double_blocks_0_txt_mlp_2": ("ff_context.net.2",),
    "single_blocks_0_linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "single_blocks_0_linear2": ("proj_out",),
}


class Learned(SimpleNamespace):
    """A control with an effect, learned at scale 2.5: its bundle, and the picture it draws."""


def learn(name, folder, targets="auto"):
    generator = load(name)
    base = generator.render([PROMPT], [SEED])
    generator.add_adapter(AdapterSpec(rank=2, scale=2.5, target_modules=targets), seed=0)
    noise = torch.Generator().manual_seed(0)
    for parameter in generator.adapter_parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=noise)
    picture = generator.render([PROMPT], [SEED])
    assert (picture - base).abs().max() > 0.01
    generator.save_adapter(folder)
    (folder / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (512, 256), "red").save(folder / "samples" / "a-house-1.png")
    bundle = SimpleNamespace(
        folder=folder,
        source=folder,
        manifest=SimpleNamespace(name="control"),
        spec=SimpleNamespace(
            description="Reddens.", generator=GeneratorSpec(model=str(saved(name)), width=64, height=32)
        ),
    )
    return Learned(name=name, bundle=bundle, picture=picture)


@pytest.fixture(scope="module")
def learned(request, tmp_path_factory):
    name, _, double = request.param.partition(",")
    return learn(name, tmp_path_factory.mktemp(name), DOUBLE_BLOCKS if double else "auto")


def read(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def assert_drawn(pipeline, learned):
    torch.testing.assert_close(plain_picture(pipeline, learned.name), learned.picture, atol=1e-5, rtol=0)


def merge(pipeline, tensors, names):
    """Add what the tensors say to a pipeline's weights, as tools that merge do: alpha / rank * up @ down.

    ``names`` gives, for the prefix of a layer's keys, the modules that it is made of.
    """
    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    prefixes = {re.sub(r"\.(lora_\w+|alpha)(\.weight)?$", "", key) for key in tensors}
    for prefix in prefixes:
        down = tensors.get(f"{prefix}.lora_A.weight", tensors.get(f"{prefix}.lora_down.weight"))
        up = tensors.get(f"{prefix}.lora_B.weight", tensors.get(f"{prefix}.lora_up.weight"))
        alpha = tensors.get(f"{prefix}.alpha", torch.tensor(float(len(down)))).item()
        modules = [denoiser.get_submodule(name) for name in names(prefix)]
        updates = (alpha / len(down) * up @ down).split([module.out_features for module in modules])
        with torch.no_grad():
            for module, update in zip(modules, updates, strict=True):
                module.weight += update
    return pipeline


def by_kohya(name, denoiser):
    """Return the modules behind kohya's names, worked out from the model's own: what a reader has to do."""
    known = {f"lora_unet_{module.replace('.', '_')}": (module,) for module, _ in denoiser.named_modules()}
    if name == "Flux":
        blocks = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
        known = {
            f"lora_unet_{theirs}": tuple(f"{blocks[theirs[:6]]}.0.{part}" for part in ours)
            for theirs, ours in FLUX_BLOCKS.items()
        }
    if (
        name == "StableDiffusionXL"
    ):  # blocks numbered as they run: this model's have a layer, then a resampling
        runs = {"down_blocks.1.attentions.0": "input_blocks_3_1", "mid_block.attentions.0": "middle_block_1"}
        runs |= {f"up_blocks.0.attentions.{index}": f"output_blocks_{index}_1" for index in range(2)}
        known = {
            f"lora_unet_{theirs}_{module.removeprefix(ours + '.').replace('.', '_')}": (module,)
            for module, _ in denoiser.named_modules()
            for ours, theirs in runs.items()
            if module.startswith(f"{ours}.")
        }
    return known.__getitem__


@pytest.mark.parametrize("learned", FAMILIES, indirect=True)
def test_plain_diffusers_draws_an_export(learned, tmp_path):
    path = export_bundle(learned.bundle, "diffusers", tmp_path / "control.safetensors")
    assert not any("alpha" in key for key in read(path)[0])
    pipeline = DiffusionPipeline.from_pretrained(saved(learned.name))
    pipeline.load_lora_weights(path)
    assert_drawn(pipeline, learned)


@pytest.mark.parametrize("learned", FAMILIES, indirect=True)
def test_a_reader_of_keys_alone_draws_an_export(learned, tmp_path):
    tensors, _ = read(export_bundle(learned.bundle, "diffusers", tmp_path / "control.safetensors"))
    pipeline = DiffusionPipeline.from_pretrained(saved(learned.name))
    assert_drawn(merge(pipeline, tensors, lambda prefix: (prefix.partition(".")[2],)), learned)


@pytest.mark.parametrize("learned", KOHYA, indirect=True)
def test_diffusers_reads_kohyas_names(learned, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(saved(learned.name))
    pipeline.load_lora_weights(export_bundle(learned.bundle, "kohya", tmp_path / "control.safetensors"))
    assert_drawn(pipeline, learned)


@pytest.mark.parametrize("learned", ["Flux", *KOHYA], indirect=True)
def test_a_reader_of_keys_alone_reads_kohyas_names(learned, tmp_path):
    tensors, _ = read(export_bundle(learned.bundle, "kohya", tmp_path / "control.safetensors"))
    assert all(tensor.is_floating_point() for tensor in tensors.values())
    pipeline = DiffusionPipeline.from_pretrained(saved(learned.name))
    denoiser = getattr(pipeline, "transformer", None) or pipeline.unet
    assert_drawn(merge(pipeline, tensors, by_kohya(learned.name, denoiser)), learned)


@pytest.mark.parametrize("learned", FAMILIES, indirect=True)
def test_peft_draws_an_export(learned, tmp_path):
    folder = export_bundle(learned.bundle, "peft", tmp_path / "control")
    pipeline = DiffusionPipeline.from_pretrained(saved(learned.name))
    component = "unet" if hasattr(pipeline, "unet") else "transformer"
    PeftModel.from_pretrained(getattr(pipeline, component), folder)  # adds its layers in place
    assert_drawn(pipeline, learned)


@pytest.mark.parametrize("adapted", [("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), ("attn.to_k",)])
def test_single_blocks_of_flux_come_back_from_kohyas_names(adapted):
    wide = {"attn.to_q": 3072, "attn.to_k": 3072, "attn.to_v": 3072, "proj_mlp": 12288}
    tensors = {}
    for part in adapted:
        name = f"single_transformer_blocks.3.{part}"
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, 3072)
        tensors[f"{name}.lora_B.weight"] = torch.randn(wide[part], 2)
    file = AdapterFile("transformer", "lora", 2, tensors, {"base_pipeline": "FluxPipeline"})
    found = FluxLoraLoaderMixin.lora_state_dict(kohya_tensors(file))
    for part in wide:
        for key in (f"single_transformer_blocks.3.{part}.lora_{which}.weight" for which in "AB"):
            back = found[f"transformer.{key}"]
            assert torch.equal(back, tensors.get(key, torch.zeros_like(back)))


@pytest.mark.parametrize("learned", ["StableDiffusionXL"], indirect=True)
def test_the_metadata_follow_modelspec(learned, tmp_path):
    path = export_bundle(learned.bundle, "kohya", tmp_path / "control.safetensors", author="Ada")
    _, metadata = read(path)
    data = path.read_bytes()
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert metadata.pop("modelspec.thumbnail").startswith("data:image/jpeg;base64,")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", metadata.pop("modelspec.date"))
    assert metadata == {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "control",
        "modelspec.description": "Reddens.",
        "modelspec.author": "Ada",
        "modelspec.resolution": "64x32",
        "modelspec.hash_sha256": f"0x{hashlib.sha256(body).hexdigest()}",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "2.0",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_output_name": "control",
    }


@pytest.mark.parametrize("learned", ["Sana"], indirect=True)
def test_what_cannot_be_exported_is_refused_in_a_line(learned, tmp_path):
    with pytest.raises(UserError, match="no such names for a SanaPipeline; export it with --format diff"):
        export_bundle(learned.bundle, "kohya", tmp_path / "control.safetensors")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match="already exists"):
        export_bundle(learned.bundle, "diffusers", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(UserError, match="cannot be written"):
        export_bundle(learned.bundle, "diffusers", tmp_path / "nowhere" / "x.safetensors")
    folder = export_bundle(learned.bundle, "peft", tmp_path / "p")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (2, 2, "LORA")
