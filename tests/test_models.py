"""Known shapes and what is built from them, and what `dualproc models` lists."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.errors import UserError
from dualproc_cli.generator import build_generator
from dualproc_cli.known_models import cache, catalog, matrix
from dualproc_cli.known_models.catalog import is_generator, known_shapes, parameter_counts
from dualproc_cli.known_models.pairs import recommended_pairs
from dualproc_cli.models.build import build_pipeline, count_parameters, dummy_processor, known_shape
from dualproc_cli.spec import AdapterSpec, GeneratorSpec, GradientSpec, VlmSpec
from dualproc_cli.vlm import AnswerScorer, build_vlm
from dualproc_cli.vlm.chat import picture_inputs, plan_prompts

CPU = torch.device("cpu")
QUESTIONS = ("Is the horizon at the red line?", "Is it night?")
ANSWERS = (["Yes", "No"], ["Yes", "No"])
TEXTS = (*QUESTIONS, "Yes", "No", "a house")
# Millions of parameters as they are published, component by component.
PUBLISHED = {
    "black-forest-labs/FLUX.1-schnell": {
        "transformer": 11_900,
        "text_encoder": 123,
        "text_encoder_2": 4_760,
        "vae": 84,
    },
    "stabilityai/sdxl-turbo": {"unet": 2_567, "text_encoder": 123, "text_encoder_2": 695, "vae": 84},
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": {
        "transformer": 1_600,
        "text_encoder": 2_610,
        "vae": 312,
    },
    "Tongyi-MAI/Z-Image-Turbo": {"transformer": 6_150, "text_encoder": 4_020, "vae": 84},
    "Qwen/Qwen2.5-VL-7B-Instruct": {"model": 8_290},
    "Qwen/Qwen3-VL-4B-Instruct": {"model": 4_440},
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": {"model": 2_250},
}
VLMS = [repo for repo in known_shapes() if not is_generator(repo)]


@pytest.mark.parametrize("repo", sorted(PUBLISHED))
def test_shapes_have_the_published_sizes(repo):
    counted = count_parameters(repo)
    assert counted == parameter_counts()[repo]
    assert counted.keys() == PUBLISHED[repo].keys()
    for name, millions in PUBLISHED[repo].items():
        assert counted[name] == pytest.approx(millions * 1e6, rel=0.01)


def test_every_shape_is_checked():
    assert known_shapes() == sorted(PUBLISHED)
    with pytest.raises(UserError, match="expected one of: Efficient-Large-Model"):
        catalog.shape_folder("nobody/nothing")


@pytest.mark.parametrize("repo", VLMS)
def test_processors_read_pictures_and_questions(repo):
    processor = dummy_processor(known_shape(repo, TEXTS))
    prompts = plan_prompts(processor, QUESTIONS, ANSWERS, [(256, 256)])
    assert prompts.holds_pictures
    assert all(len(answer) == 1 for group in prompts.answers for answer in group)
    assert prompts.shared > 0.8 * max(map(len, prompts.tokens))
    image = torch.rand(3, 256, 256, requires_grad=True)
    inputs = picture_inputs(processor, [[image]], prompts.pixel_keys)
    assert inputs["pixel_values"].requires_grad


def shrink(repo: str, changes: dict[str, dict], folder: Path, monkeypatch) -> None:
    """Let ``repo`` be known by a copy of its shape with fewer and narrower layers."""
    copy = folder / repo.replace("/", "--")
    source = catalog.shape_folder(repo)
    for path in source.rglob("*.*"):
        target = copy / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    for name, values in changes.items():
        config = json.loads((copy / name).read_text())
        for key, value in values.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        (copy / name).write_text(json.dumps(config))
    monkeypatch.setattr(catalog, "SHAPES", folder)


NARROW_VAE = {"block_out_channels": [32] * 4, "layers_per_block": 1}
FLUX_SHALLOW = {
    "transformer/config.json": {
        "num_layers": 1,
        "num_single_layers": 1,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
    },
    "text_encoder/config.json": {"num_hidden_layers": 1},
    "text_encoder_2/config.json": {"num_layers": 1, "d_model": 32, "d_ff": 64, "num_heads": 2},
    "vae/config.json": NARROW_VAE,
}
SHALLOW = {
    "black-forest-labs/FLUX.1-schnell": FLUX_SHALLOW,
    "stabilityai/sdxl-turbo": {
        "unet/config.json": {
            "block_out_channels": [32, 32, 64],
            "attention_head_dim": 2,
            "transformer_layers_per_block": 1,
        },
        "text_encoder/config.json": {"num_hidden_layers": 2},
        "text_encoder_2/config.json": {"num_hidden_layers": 2},
        "vae/config.json": NARROW_VAE,
    },
    "Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers": {
        "transformer/config.json": {
            "num_layers": 1,
            "num_attention_heads": 2,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 32,
            "cross_attention_dim": 64,
            "caption_channels": 64,
        },
        "text_encoder/config.json": {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 64},
        "vae/config.json": {
            "encoder_block_out_channels": [32] * 6,
            "decoder_block_out_channels": [32] * 6,
            "encoder_layers_per_block": [1] * 6,
            "decoder_layers_per_block": [1] * 6,
        },
    },
    "Tongyi-MAI/Z-Image-Turbo": {
        "transformer/config.json": {
            "n_layers": 1,
            "n_refiner_layers": 1,
            "dim": 256,
            "n_heads": 2,
            "n_kv_heads": 2,
            "cap_feat_dim": 64,
        },
        "text_encoder/config.json": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 64},
        "vae/config.json": NARROW_VAE,
    },
}


@pytest.mark.parametrize("repo", sorted(SHALLOW))
def test_pipelines_with_random_weights_draw_and_learn(repo, tmp_path, monkeypatch):
    shrink(repo, SHALLOW[repo], tmp_path, monkeypatch)
    spec = GeneratorSpec(model=repo, width=64, height=64, steps=2, guidance_scale=0.0, dtype="bfloat16")
    generator = build_generator(spec, CPU, "random", TEXTS)
    assert {parameter.dtype for parameter in generator.pipeline.vae.parameters()} == {torch.bfloat16}
    generator.add_adapter(AdapterSpec(rank=2), seed=0)
    images = generator.render(["a house"], [0], gradient=GradientSpec())
    images.mean().backward()
    assert images.isfinite().all()
    assert any(parameter.grad.any() for parameter in generator.adapter_parameters())


def test_tied_weights_stay_tied(tmp_path, monkeypatch):
    repo = "black-forest-labs/FLUX.1-schnell"
    shrink(repo, FLUX_SHALLOW, tmp_path, monkeypatch)
    encoder = build_pipeline(known_shape(repo, TEXTS), "random", CPU, torch.bfloat16).text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    assert encoder.shared.weight.std() > 0


def test_a_vlm_with_random_weights_answers(tmp_path, monkeypatch):
    repo = "Qwen/Qwen2.5-VL-7B-Instruct"
    text = {
        "num_hidden_layers": 1,
        "hidden_size": 256,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    vision = {
        "depth": 1,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 256,
        "fullatt_block_indexes": [0],
    }
    shrink(repo, {"config.json": {"text_config": text, "vision_config": vision}}, tmp_path, monkeypatch)
    vlm = build_vlm(VlmSpec(model=repo), CPU, "random", TEXTS)
    scorer = AnswerScorer(vlm, QUESTIONS, ANSWERS)
    assert scorer.prepare(56, 56).name == "cache"
    scores = scorer(torch.rand(1, 3, 56, 56))
    assert all(likelihood.isfinite().all() for likelihood in scores.log_likelihood)


# The command


def models(*arguments):
    result = CliRunner().invoke(app, ["models", *arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache with two pipelines, a VLM and two models that are neither."""
    configs = {
        "some/pipeline": ("model_index.json", {"_class_name": "FluxPipeline"}),
        "some/sprint": ("model_index.json", {"_class_name": "SanaSprintPipeline"}),
        "some/vlm": ("config.json", {"model_type": "smolvlm"}),
        "some/upscaler": ("model_index.json", {"_class_name": "StableDiffusionUpscalePipeline"}),
        "some/language-model": ("config.json", {"model_type": "llama"}),
    }
    for repo, (name, config) in configs.items():
        snapshot = tmp_path / f"models--{repo.replace('/', '--')}" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / name).write_text(json.dumps(config))
    scan = cache.scan_cache_dir
    monkeypatch.setattr(cache, "scan_cache_dir", lambda: scan(tmp_path))


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "matrix.json"
    records = [
        {
            "kind": "generator",
            "name": "SanaSprint",
            "checks": {"gradient": "passed"},
            "workarounds": [],
            "reason": "a remark",
        },
        {
            "kind": "vlm",
            "name": "Idefics2",
            "checks": {"picture": "passed", "prefix": "differs by 0.2"},
            "workarounds": ["picture by picture"],
            "reason": None,
        },
    ]
    path.write_text(json.dumps(records))
    monkeypatch.setattr(matrix, "MATRIX", path)
    return path


def test_models_lists_what_was_tried_and_what_is_cached(hub, table):
    found = json.loads(models("--json"))
    assert [(entry["name"], entry["works"]) for entry in found["tried"]] == [
        ("SanaSprint", True),
        ("Idefics2", False),
    ]
    assert [(entry["repo"], entry["kind"]) for entry in found["cached"]] == [
        ("some/pipeline", "generator"),
        ("some/sprint", "generator"),
        ("some/vlm", "vlm"),
    ]
    shown = models()
    assert "works; a remark" in shown
    assert "prefix: differs by 0.2" in shown
    assert "some/pipeline" in shown


def test_models_without_a_table_says_so_in_a_line(tmp_path, monkeypatch, hub):
    monkeypatch.setattr(matrix, "MATRIX", tmp_path / "none.json")
    assert "has no table of tried models" in models()
    assert json.loads(models("--json"))["tried"] is None


def test_a_damaged_table_is_refused_in_a_line(table):
    table.write_text('[{"kind": "vlm"}]')
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 2
    assert "damaged" in result.output


def test_pairs_are_of_known_shapes_and_their_sizes_add_up():
    for pair in recommended_pairs():
        assert is_generator(pair.generator)
        assert not is_generator(pair.vlm)
        counts = parameter_counts()
        total = sum(counts[pair.generator].values()) + sum(counts[pair.vlm].values())
        assert pair.weights_gib == pytest.approx(2 * total / 2**30, abs=0.1)
    sizes = [pair.weights_gib for pair in recommended_pairs()]
    assert sizes == sorted(sizes)
