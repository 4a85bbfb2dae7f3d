"""Presets: they go by what a model is, and leave to its pipeline what they do not know."""

import inspect
import json
import time

import diffusers
import pytest
from spec_files import SHORTEST, fault_lines, load_text
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.spec.model_facts import generator_facts
from dualproc_cli.spec.pipeline_defaults import pipeline_defaults
from dualproc_cli.spec.presets import presets

FLOW = {"scheduler": ("FlowMatchEulerDiscreteScheduler", {"shift": 1.0})}
TRAILING = {"timestep_spacing": "trailing", "prediction_type": "epsilon"}
LEADING = {"timestep_spacing": "leading", "prediction_type": "epsilon"}
BLOCKS = {"block_out_channels": [8, 8, 8, 8]}


def model(folder, pipeline, index=None, **parts):
    """Write the configuration of a pipeline, without weights: a local copy, or a fine-tune, of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (kind, config) in parts.items():
        (folder / name).mkdir()
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (folder / name / file).write_text(json.dumps(config))
        index = {**(index or {}), name: ["diffusers", kind]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline, **index}))
    return folder


def flux(guidance):
    return {**FLOW, "transformer": ("FluxTransformer2DModel", {"guidance_embeds": guidance})}


def unet(scheduler, config, sample_size=64):
    vae = ("AutoencoderKL", BLOCKS)
    return {
        "scheduler": (scheduler, config),
        "unet": ("UNet2DConditionModel", {"sample_size": sample_size}),
        "vae": vae,
    }


def sana(pipeline, sample_size):
    parts = {**FLOW, "transformer": ("SanaTransformer2DModel", {"sample_size": sample_size})}
    return pipeline, {**parts, "vae": ("AutoencoderDC", {"encoder_block_out_channels": [8] * 6})}


KINDS = {
    "flux-schnell": ("FluxPipeline", flux(False), (512, 1, 0.0)),
    "flux-dev": ("FluxPipeline", flux(True), (512, 28, 3.5)),
    "sana-512": (*sana("SanaPipeline", 16), (512, 20, 4.5)),
    "sana": (*sana("SanaPipeline", 32), (1024, 20, 4.5)),
    "stable-diffusion": ("StableDiffusionPipeline", unet("PNDMScheduler", LEADING), (512, 50, 7.5)),
    "stable-diffusion-turbo": (
        "StableDiffusionPipeline",
        unet("EulerDiscreteScheduler", TRAILING),
        (512, 1, 0.0),
    ),
    "stable-diffusion-xl-turbo": (
        "StableDiffusionXLPipeline",
        unet("EulerAncestralDiscreteScheduler", TRAILING),
        (512, 1, 0.0),
    ),
    "latent-consistency": ("StableDiffusionPipeline", unet("LCMScheduler", LEADING), (512, 4, 1.0)),
    "pipeline": (
        "StableDiffusionXLPipeline",
        unet("EulerDiscreteScheduler", LEADING, sample_size=128),
        (1024, 50, 5.0),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_local_copy_gets_the_preset_of_what_it_is(tmp_path, name):
    pipeline, parts, (size, steps, guidance) = KINDS[name]
    folder = model(tmp_path / "my-own-fine-tune", pipeline, **parts)
    loaded = load_text(tmp_path, SHORTEST, f"generator.model={folder}")
    spec = loaded.spec
    assert loaded.presets["generator"].name == name
    assert loaded.presets["generator"].why.startswith(f"{pipeline}: ")
    assert (spec.generator.width, spec.generator.height) == (size, size)
    assert (spec.generator.steps, spec.generator.guidance_scale) == (steps, guidance)
    assert loaded.origins["generator.steps"] == "preset"
    # The method's own settings, whatever the model.
    assert spec.learn.adapter.init == "gaussian"
    assert (spec.learn.adapter.rank, spec.learn.adapter.scale) == (16, 2.5)
    assert spec.learn.optimizer.betas == (0.9, 0.999)
    assert (spec.learn.schedule, spec.learn.batch_size) == ("constant", 1)
    assert spec.learn.gradient.through == "x0-jump"
    assert spec.learn.keep.smoothness > 0 < spec.learn.keep.picture


def test_a_stable_diffusion_of_768_pixels_keeps_its_size(tmp_path):
    folder = model(
        tmp_path / "m", "StableDiffusionPipeline", **unet("DDIMScheduler", LEADING, sample_size=96)
    )
    assert load_text(tmp_path, SHORTEST, f"generator.model={folder}").spec.generator.width == 768


PAPER = {
    "flux-schnell": (5e-5, 1, 0.0, {}),
    "flux-dev": (5e-5, 28, 0.0, {"use_dynamic_shifting": False}),
    "sana-512": (
        5e-6,
        20,
        4.5,
        {"class": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": False},
    ),
    "stable-diffusion": (5e-5, 50, 7.5, {"class": "DDIMScheduler"}),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings_are_the_published_ones(tmp_path, name):
    folder = model(tmp_path / "m", KINDS[name][0], **KINDS[name][1])
    spec = load_text(tmp_path, SHORTEST, f"generator.model={folder}", "preset=paper").spec
    learn, generator = spec.learn, spec.generator
    found = (learn.learning_rate, generator.steps, generator.guidance_scale, generator.scheduler)
    assert found == PAPER[name]
    assert (generator.width, generator.height) == (512, 512)
    assert (learn.steps, learn.gradient_clip, learn.optimizer.weight_decay) == (100, 1.0, 0.0)
    assert (learn.noise_pool, learn.objective, learn.where) == ("steps", "likelihood", ("weights",))
    assert not learn.keep.matters
    assert learn.jitter.model_dump() == {"noise": 0, "shift": 0, "zoom": 0, "blur": 0, "views": 1}
    assert learn.adapter.target_modules != "auto"


@pytest.mark.parametrize("name", [one["name"] for one in presets()["generators"] if "paper" not in one])
def test_the_paper_has_no_run_of_other_models(tmp_path, name):
    one = next(one for one in presets()["generators"] if one["name"] == name)
    named = "miniature" if name == "miniature" else next(iter(one.get("repositories", ["some/model"])))
    (line,) = fault_lines(tmp_path, SHORTEST, f"generator.model={named}", "preset=paper")
    assert line.startswith(f"--set preset=paper: preset: the method's paper has no run of {named}")
    assert line.endswith("(expected auto, or one of flux-schnell, flux-dev, sana-512, stable-diffusion)")


def test_a_name_has_to_do_where_the_configuration_is_not_at_hand(tmp_path):
    named = load_text(tmp_path, SHORTEST, "generator.model=black-forest-labs/FLUX.1-dev").presets["generator"]
    assert named.name == "flux-dev"
    assert named.why.endswith(
        "by the name of black-forest-labs/FLUX.1-dev, whose configuration is not here yet"
    )
    unknown = load_text(tmp_path, SHORTEST, "generator.model=somebody/something")
    assert unknown.presets["generator"].name == "pipeline"
    assert unknown.origins["generator.width"] == "default"


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"_class_name": 3}', '{"scheduler": [null, 1]}', '{"unet": "x"}', "[" * 100_000]
)
def test_a_damaged_configuration_is_an_unknown_one(tmp_path, text):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text(text)
    assert load_text(tmp_path, SHORTEST, f"generator.model={tmp_path / 'm'}").spec.generator.steps > 0


PIPELINES = (
    "Flux StableDiffusion StableDiffusionXL StableDiffusion3 Sana SanaSprint PixArtSigma ZImage Chroma "
    "AuraFlow LatentConsistencyModel Lumina2 Kandinsky3 CogView4 HunyuanDiT HiDreamImage Flux2Klein"
)


@pytest.mark.parametrize("name", PIPELINES.split())
def test_defaults_read_from_the_source_are_those_of_the_call(name):
    takes = inspect.signature(getattr(diffusers, f"{name}Pipeline").__call__).parameters
    found = pipeline_defaults({"pipeline": f"{name}Pipeline"})
    assert found["steps"] == takes["num_inference_steps"].default
    assert found["guidance_scale"] == takes["guidance_scale"].default
    for side in ("width", "height"):
        if takes[side].default is not None:
            assert found[side] == takes[side].default


def test_true_guidance_and_unknown_pipelines():
    assert pipeline_defaults({"pipeline": "QwenImagePipeline"})["guidance_scale"] == 4.0
    assert pipeline_defaults({"pipeline": "SomebodysPipeline"}) == pipeline_defaults({}) == {}


def test_a_pipelines_own_size_is_that_of_its_denoiser(tmp_path):
    folder = model(
        tmp_path / "m", "StableDiffusion3Pipeline", **unet("FlowMatchEulerDiscreteScheduler", {}, 128)
    )
    assert pipeline_defaults(generator_facts(str(folder), None))["width"] == 1024


VLMS = {
    "idefics": ({"model_type": "idefics2"}, {"do_image_splitting": False}),
    "gemma3": ({"model_type": "gemma3"}, {"do_pan_and_scan": False}),
    "llava": ({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}, {}),
    "pixtral": ({"model_type": "llava", "vision_config": {"model_type": "pixtral"}}, {}),
    "qwen-vl": ({"model_type": "qwen2_5_vl"}, {}),
    "own": ({"model_type": "some_vlm"}, {}),
}


@pytest.mark.parametrize("name", VLMS)
def test_presets_of_vlms(tmp_path, name):
    config, processor = VLMS[name]
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm" / "config.json").write_text(json.dumps(config))
    loaded = load_text(
        tmp_path, SHORTEST, f"vlm.model={tmp_path / 'vlm'}", f"evaluate.vlm.model={tmp_path / 'vlm'}"
    )
    assert loaded.presets["vlm"].name == loaded.presets["evaluate.vlm"].name == name
    assert loaded.spec.vlm.processor == loaded.spec.evaluate.vlm.processor == processor
    if processor:
        assert loaded.origins[f"vlm.processor.{next(iter(processor))}"] == "preset"
    own = load_text(tmp_path, SHORTEST, f"vlm.model={tmp_path / 'vlm'}", "vlm.processor={}")
    assert own.spec.vlm.processor == {}


def test_every_preset_is_reached_and_has_its_reason():
    for kind in ("generators", "vlms"):
        names = [one["name"] for one in presets()[kind]]
        assert len(names) == len(set(names))
        assert all(one["why"] for one in presets()[kind])
        assert "is" not in presets()[kind][-1]
        assert all(one.get("is") for one in presets()[kind][:-1])


def test_check_names_the_presets_within_a_second(tmp_path):
    folder = model(tmp_path / "m", "FluxPipeline", **flux(False))
    path = tmp_path / "spec.yaml"
    path.write_text(SHORTEST + f"generator: {{model: {folder}}}\n")
    started = time.process_time()
    shown = CliRunner().invoke(app, ["check", str(path)]).stdout
    assert time.process_time() - started < 1
    assert "generator: preset flux-schnell (FluxPipeline: FLUX without an input" in shown
    report = json.loads(CliRunner().invoke(app, ["check", "--json", str(path)]).stdout)
    assert report["specs"][0]["presets"]["generator"]["name"] == "flux-schnell"
