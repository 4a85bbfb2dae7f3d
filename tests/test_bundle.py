"""Bundles: what is written, and what is refused when a bundle is read."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from dualproc_cli.__main__ import app
from dualproc_cli.bundle import (
    Bundle,
    Manifest,
    Outcome,
    Revisions,
    VerdictRecord,
    add_report,
    archive,
    write_bundle,
)
from dualproc_cli.bundle.card import model_card
from dualproc_cli.bundle.manifest import whole_digest
from dualproc_cli.errors import UserError
from dualproc_cli.files import digest
from dualproc_cli.generator import load_generator, write_steering
from dualproc_cli.metrics import StepMetrics
from dualproc_cli.pictures import to_pil
from dualproc_cli.spec import ControlSpec, canonical, load_spec, spec_digest
from dualproc_cli.vlm import load_vlm

CPU = torch.device("cpu")

SPEC = """\
# how a user wrote it
name: painted
generator: {model: org/painter, trust_remote_code: true}
prompts: {train: [a house, "say \\"hello\\" for $5"]}
visual_prompts:
  painting: {type: image, path: pictures/painting.png}
questions:
  - {name: alike, question: "Is it | like the painting?", answer: "Yes", visual_prompt: painting}
learn: {seed: 7}
evaluate: {vlm: {model: org/judge, trust_remote_code: true}}
"""
UNKNOWN = Revisions(generator=None, vlm=None, evaluate_vlm=None)


def metrics(count, question="alike"):
    return [
        StepMetrics(
            step=step,
            phase="weights",
            loss=1 / step,
            keep=0.1,
            losses={question: 1 / step},
            probabilities={question: 1 - 1 / step},
            gradient_norm=0.5,
            learning_rate=1e-4,
        )
        for step in range(1, count + 1)
    ]


def write(output, loaded, generator):
    """Write the bundle of a generator's adapter, as learning does."""
    steps = metrics(1, loaded.spec.questions[0].name)
    for question in loaded.spec.questions:
        steps[0].probabilities[question.name] = 0.5
    write_bundle(
        output,
        loaded,
        save_adapter=generator.save_adapter,
        save_steering=partial(write_steering, generator.steering) if generator.steering else None,
        arguments=generator.call_arguments(),
        revisions=Revisions(generator=generator.revision, vlm=None, evaluate_vlm=None),
        memory=(),
        metrics=steps,
        outcome=Outcome(reason="steps", step=1, seconds=1.5),
        verdict=None,
        grid=Image.new("RGB", (4, 4)),
        samples={},
    )


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pictures" / "painting.png")
    (tmp_path / "spec.yaml").write_text(SPEC)
    return load_spec(tmp_path / "spec.yaml", ["learn.steps=20"])


@pytest.fixture
def bundle(loaded, tmp_path):
    output = tmp_path / "out" / "painted"
    write_bundle(
        output,
        loaded,
        save_adapter=lambda folder: (folder / "pytorch_lora_weights.safetensors").write_bytes(b"weights"),
        arguments={"width": 64, "guidance_scale": 0.0},
        revisions=Revisions(generator="c0ffee", vlm=None, evaluate_vlm="decaf"),
        memory=("checkpoint-vae",),
        metrics=metrics(20),
        outcome=Outcome(reason="steps", step=20, seconds=1.5),
        verdict=None,
        grid=Image.new("RGB", (4, 4)),
        samples={"a-house-0.png": Image.new("RGB", (4, 4))},
    )
    return output


def zipped(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def edit_manifest(bundle, **changes):
    """Change values as somebody would who computes the digest of the whole anew."""
    path = bundle / "bundle.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(data | {"digest": whole_digest(data)}))


def refusal(path):
    with pytest.raises(UserError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bundle_records_the_run(bundle, loaded):
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    assert manifest.overrides == {"learn.steps": 20}
    assert manifest.origins["learn.seed"] == "spec"
    assert manifest.seed == 7
    assert manifest.memory == ["checkpoint-vae"]
    assert manifest.metrics == metrics(20)
    assert (bundle / "spec.yaml").read_text() == SPEC
    assert opened.spec.learn == loaded.spec.learn
    assert manifest.files.keys() == {
        "README.md",
        "pictures/painting.png",
        "pytorch_lora_weights.safetensors",
        "samples/a-house-0.png",
        "samples/before-after.png",
        "spec.yaml",
    }
    assert all(digest(bundle / path) == value for path, value in manifest.files.items())


def test_models_are_pinned_and_their_code_is_not_trusted(bundle):
    spec = Bundle.open(bundle).spec
    assert spec.generator.revision == "c0ffee"
    assert spec.evaluate.vlm.revision == "decaf"
    assert "true" not in re.findall(r'"trust_remote_code": (\w+)', canonical(spec))
    assert len(re.findall("trust_remote_code", canonical(spec))) == 3


def test_evaluating_a_bundle_does_not_run_code_of_its_models(tmp_path, small_spec, vlm_folder):
    judge, ran = Path(shutil.copytree(vlm_folder, tmp_path / "judge")), tmp_path / "ran"
    kinds = {
        "AutoConfig": "Idefics3Config",
        "AutoModelForImageTextToText": "Idefics3ForConditionalGeneration",
    }
    # Classes of its own: those of transformers would be marked as custom code for the rest of the tests.
    own = "".join(f"class {kind}(transformers.{kind}): ...\n" for kind in kinds.values())
    (judge / "own.py").write_text(
        f"import pathlib\nimport transformers\npathlib.Path({str(ran)!r}).touch()\n{own}"
    )
    config = json.loads((judge / "config.json").read_text())
    config["auto_map"] = {auto: f"own.{kind}" for auto, kind in kinds.items()}
    (judge / "config.json").write_text(json.dumps(config))
    trusting = [f"evaluate.vlm.model={judge}", "evaluate.vlm.trust_remote_code=true", "evaluate.seeds=1"]
    loaded = load_spec(small_spec(tmp_path), trusting)
    generator = load_generator(loaded.spec.generator, CPU)
    generator.add_adapter(loaded.spec.learn.adapter, 0)
    write(tmp_path / "bundle", loaded, generator)

    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "bundle"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert not ran.exists()
    load_vlm(loaded.spec.evaluate.vlm, CPU)  # as the spec's own user would
    assert ran.exists()


def test_card_is_a_model_card(bundle, loaded):
    card = (bundle / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["base_model"] == "org/painter"
    assert front["library_name"] == "diffusers"
    assert "license" not in front
    assert r"| Is it \| like the painting? | Yes | 0.54 | 0.94 |" in body
    assert "    width=64,\n    guidance_scale=0.0,\n" in body
    assert "revision='c0ffee', trust_remote_code=True" in body


def test_code_of_the_card_draws_the_pictures_of_sample(tmp_path):
    loaded = load_spec(Path(__file__).parent.parent / "specs" / "horizon-position.yaml")
    generator = load_generator(loaded.spec.generator, CPU)
    generator.add_adapter(loaded.spec.learn.adapter, 0)
    with torch.no_grad():
        for parameter in generator.adapter_parameters():
            parameter.normal_(0, 0.02, generator=torch.Generator().manual_seed(len(parameter)))
    write(tmp_path / "bundle", loaded, generator)
    prompt = loaded.spec.prompts.train[0]
    options = f"--control {tmp_path / 'bundle'} --seed 0 -n 1 -o {tmp_path / 'pictures'} --device cpu"
    sampled = CliRunner().invoke(app, ["sample", prompt, *options.split()])
    assert sampled.exit_code == 0, sampled.output
    card = (tmp_path / "bundle" / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    code = code.replace("PATH_OF_THIS_FOLDER", str(tmp_path / "bundle"))
    drawn: dict = {}
    exec(code.replace("torch.cuda.is_available()", "False"), drawn)  # on the CPU, in float32
    (path,) = (tmp_path / "pictures").glob("*.png")
    assert np.array_equal(np.asarray(drawn["image"]), np.asarray(Image.open(path)))
    with generator.without_adapter():
        base = to_pil(generator.render([prompt], [0])[0])
    assert not np.array_equal(np.asarray(base), np.asarray(drawn["image"]))


@pytest.mark.parametrize("where", [["noise", "conditioning"], ["colors"]])
def test_code_of_the_card_draws_steered_pictures(tmp_path, where):
    loaded = load_spec(Path(__file__).parent.parent / "specs" / "horizon-position.yaml")
    generator = load_generator(loaded.spec.generator, CPU)
    generator.add_adapter(loaded.spec.learn.adapter, 0)
    generator.add_steering(where, seed=0)
    with torch.no_grad():
        for parameter in generator.steering.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(parameter)))
    write(tmp_path / "bundle", loaded, generator)
    assert "steering.safetensors" in Bundle.open(tmp_path / "bundle").manifest.files
    card = (tmp_path / "bundle" / "README.md").read_text()
    blocks = [part.split("```")[0] for part in card.split("```python\n")[1:]]
    code = "".join(blocks).replace("PATH_OF_THIS_FOLDER", str(tmp_path / "bundle"))
    drawn: dict = {}
    exec(code.replace("torch.cuda.is_available()", "False"), drawn)
    prompt = loaded.spec.prompts.train[0]
    with generator.steered():
        steered = to_pil(generator.render([prompt], [0])[0])
    difference = np.asarray(drawn["image"]).astype(int) - np.asarray(steered)
    assert np.abs(difference).max() <= 1  # recoloured before or after a rounding
    assert not np.array_equal(np.asarray(to_pil(generator.render([prompt], [0])[0])), np.asarray(steered))


def verdict(name, share):
    figures = {"confirmed": share, "held-out wordings": None, "spread_kept": 0.9}
    return VerdictRecord(name=name, reason=f"{share:.0%} of $5 \\1", figures=figures)


def test_a_report_is_added_to_a_bundle_that_stays_valid(bundle):
    (bundle / ".git").mkdir()
    before = Bundle.open(bundle)
    add_report(before, "<p>one</p>", verdict("fooled", 0.25), "8 seeds")
    first = Bundle.open(bundle)
    assert first.manifest.digest != before.manifest.digest
    assert first.manifest.files.keys() == before.manifest.files.keys() | {"report.html"}
    changed = add_report(first, "<p>two</p>", verdict("learned", 0.9), "16 seeds")
    assert Bundle.open(bundle).manifest == changed
    assert (bundle / "report.html").read_text() == "<p>two</p>"
    assert (bundle / ".git").is_dir()
    card = (bundle / "README.md").read_text()
    assert card.count("## Verdict") == card.count("## Use") == 1
    assert "**learned**: 90% of $5 \\1." in card
    assert "| right, as far as is known | 90% |" in card
    assert "Judged on 16 seeds." in card
    assert "held" not in card.split("## Verdict")[1].split("## Use")[0]
    assert list(bundle.parent.iterdir()) == [bundle]


def test_card_quotes_a_prompt_for_the_shell(loaded):
    prompts = loaded.spec.prompts.model_copy(update={"train": loaded.spec.prompts.train[::-1]})
    spec = loaded.spec.model_copy(update={"prompts": prompts})
    outcome = Outcome(reason="stop_at", step=5, seconds=1)
    card = model_card(spec, metrics(5), outcome, UNKNOWN, {}, {})
    assert r'dualproc sample "say \"hello\" for \$5" --control' in card


@pytest.mark.parametrize("prefix", ["", "painted/"])
def test_zip_is_unpacked_and_removed_again(bundle, tmp_path, prefix):
    opened = Bundle.open(zipped(bundle, tmp_path / "painted.zip", prefix))
    folder = opened.folder
    assert opened.manifest.name == "painted"
    assert (folder / "spec.yaml").read_text() == SPEC
    assert opened.loaded.folder == folder
    del opened
    assert not folder.exists()


@pytest.mark.parametrize("path", ["pytorch_lora_weights.safetensors", "spec.yaml", "pictures/painting.png"])
def test_changed_byte(bundle, path):
    data = bytearray((bundle / path).read_bytes())
    data[-1] ^= 1
    (bundle / path).write_bytes(data)
    assert f"{path} was changed" in refusal(bundle)


@pytest.mark.parametrize("path", ["README.md", "pytorch_lora_weights.safetensors", "samples/a-house-0.png"])
def test_missing_file(bundle, path):
    (bundle / path).unlink()
    assert f"{path} is missing" in refusal(bundle)


def test_missing_adapter_that_the_manifest_does_not_list(bundle):
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    del files["pytorch_lora_weights.safetensors"]
    (bundle / "pytorch_lora_weights.safetensors").unlink()
    edit_manifest(bundle, files=files)
    assert "pytorch_lora_weights.safetensors is missing" in refusal(bundle)


def test_extra_file(bundle):
    (bundle / "samples" / "extra.py").write_text("")
    assert "samples/extra.py does not belong" in refusal(bundle)


def test_a_link_leads_to_a_file_inside_or_nowhere(bundle, tmp_path):
    (bundle / "README.md").rename(tmp_path / "outside.md")
    (bundle / "README.md").symlink_to(tmp_path / "outside.md")
    assert "README.md leads out of the bundle" in refusal(bundle)
    # The hub's cache keeps files in blobs/ and links them into snapshots/COMMIT.
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    bundle.rename(snapshot)
    (snapshot.parent.parent / "blobs").mkdir()
    (tmp_path / "outside.md").rename(snapshot.parent.parent / "blobs" / "4567def")
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").symlink_to("../../blobs/4567def")
    Bundle.open(snapshot)


def test_link_to_a_folder(bundle, tmp_path):
    (bundle / "linked").symlink_to(tmp_path)
    assert "linked does not belong" in refusal(bundle)


def test_what_the_hub_adds_is_ignored(bundle):
    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs")
    (bundle / ".cache").mkdir()
    (bundle / ".cache" / "huggingface").write_text("")
    assert Bundle.open(bundle).manifest.name == "painted"


@pytest.mark.parametrize(
    "path", ["../spec.yaml", "/etc/hostname", "a/../spec.yaml", "C:spec.yaml", "a\\b", "bundle.json"]
)
def test_foreign_path_in_the_manifest(bundle, path):
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    edit_manifest(bundle, files=files | {path: "0" * 64})
    assert "which a bundle cannot hold" in refusal(bundle)


def test_newer_format(bundle):
    edit_manifest(bundle, format=3, new_key=1)
    assert "format 3 is newer" in refusal(bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "1"}', '{"format": 2}', "\x00"])
def test_malformed_manifest(bundle, text):
    (bundle / "bundle.json").write_text(text)
    assert "bundle.json" in refusal(bundle)


@pytest.mark.parametrize("field", sorted(Manifest.model_fields.keys() - {"format"}))
def test_missing_field_of_the_manifest(bundle, field):
    path = bundle / "bundle.json"
    data = json.loads(path.read_text())
    del data[field]
    path.write_text(json.dumps(data))
    assert refusal(bundle) == f"{path}: {field}: Field required; the file was changed or damaged"


def test_changed_spec_in_the_manifest(bundle):
    spec = json.loads((bundle / "bundle.json").read_text())["spec"]
    spec["learn"]["steps"] = 21
    edit_manifest(bundle, spec=spec)
    assert "does not have the digest" in refusal(bundle)
    spec["learn"]["steps"] = "many"
    edit_manifest(bundle, spec=spec)
    assert "learn.steps" in refusal(bundle)


def test_bundles_outlive_new_keys_of_the_spec(bundle):
    spec = json.loads((bundle / "bundle.json").read_text())["spec"]
    del spec["learn"]["keep"]["matting"]
    edit_manifest(bundle, spec=spec, spec_digest=spec_digest(spec))
    assert Bundle.open(bundle).spec.learn.keep.matting == 0
    del spec["learn"]["keep"]["smoothness"]
    edit_manifest(bundle, spec=spec)
    assert "does not have the digest" in refusal(bundle)


def test_spec_with_a_key_of_another_version(bundle):
    data = json.loads((bundle / "bundle.json").read_text())
    spec = data["spec"] | {"invented": 1}
    edit_manifest(bundle, spec=spec, versions=data["versions"] | {"dualproc": "99.1"})
    assert "the file was changed or damaged, or dualproc 99.1 reads it" in refusal(bundle)


def test_spec_may_not_read_pictures_outside_the_bundle(bundle, loaded):
    spec = json.loads((bundle / "bundle.json").read_text())["spec"]
    spec["visual_prompts"]["painting"]["path"] = "/etc/hostname"
    edit_manifest(bundle, spec=spec, spec_digest=spec_digest(ControlSpec.model_validate(spec)))
    assert "/etc/hostname is not in the bundle" in refusal(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"outcome": {"reason": "steps", "step": 21, "seconds": 1.5}},
        {"verdict": {"name": "learned", "reason": "all is well", "figures": {}}},
        {"digest": "0" * 64},
    ],
)
def test_changed_manifest(bundle, changes):
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert "bundle.json: was changed since the bundle was written" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "../../evil"}, "name: String should match pattern"),
        ({"name": "/tmp/evil"}, "name: String should match pattern"),
        ({"name": "other"}, "spec: name: is painted, not other"),
        ({"metrics": []}, "metrics: List should have at least 1 item"),
        ({"metrics": [metrics(1, "another")[0].model_dump()]}, "nothing about the question alike"),
        ({"metrics": [metrics(1)[0].model_dump() | {"loss": "nan"}]}, "was changed"),
        ({"revisions": {"generator": " ", "vlm": None, "evaluate_vlm": None}}, "revisions.generator: "),
    ],
)
def test_manifest_that_no_run_would_write(bundle, changes, problem):
    edit_manifest(bundle, **changes)
    assert problem in refusal(bundle)


def test_manifest_that_is_nested_deeply(bundle):
    (bundle / "bundle.json").write_text('{"format": 2, "spec": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert "cannot be read (recursion limit" in refusal(bundle)


def test_spec_that_contradicts_itself(bundle):
    spec = json.loads((bundle / "bundle.json").read_text())["spec"]
    spec["questions"][0]["visual_prompt"] = "none"
    edit_manifest(bundle, spec=spec, spec_digest=spec_digest(ControlSpec.model_validate(spec)))
    assert 'questions.0.visual_prompt: no visual prompt "none"' in refusal(bundle)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_files_that_never_end(bundle, kind):
    path = bundle / "samples" / "a-house-0.png"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    said = {"pipe": "a-house-0.png: Not a regular file", "device": "a-house-0.png leads out of the bundle"}
    assert said[kind] in refusal(bundle)


def test_files_that_are_too_large(bundle):
    os.truncate(bundle / "README.md", 2**40)  # its bytes are not on the disk
    assert "too large" in refusal(bundle)
    os.truncate(bundle / "bundle.json", 2**40)
    assert "larger than 256 MiB" in refusal(bundle)


def test_no_bundle(tmp_path):
    assert "no such bundle" in refusal(tmp_path / "none")
    assert "not a bundle" in refusal(tmp_path)
    (tmp_path / "text.zip").write_text("no zip")
    assert "not a readable zip" in refusal(tmp_path / "text.zip")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_zip_with_paths_outside_the_bundle(tmp_path, name):
    inside = tmp_path / "in"
    inside.mkdir()
    with zipfile.ZipFile(inside / "evil.zip", "w") as file:
        file.writestr(name, "evil")
    assert "leads out of the bundle" in refusal(inside / "evil.zip")
    assert not list(tmp_path.rglob("evil"))


def test_zip_with_a_link(tmp_path):
    entry = zipfile.ZipInfo("spec.yaml")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as file:
        file.writestr(entry, "/etc/hostname")
    assert "leads out of the bundle" in refusal(tmp_path / "link.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_an_unusual_method(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "odd.zip", "w", method) as file:
        file.writestr("bundle.json", "{}")
    assert "zip the folder again" in refusal(tmp_path / "odd.zip")


def test_zip_with_a_name_that_no_file_can_have(tmp_path):
    with zipfile.ZipFile(tmp_path / "long.zip", "w") as file:
        file.writestr("n" * 300, "")
    assert "not a readable zip file" in refusal(tmp_path / "long.zip")


def test_zip_whose_deflated_data_are_damaged(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bundle.json", os.urandom(1000).hex())
    data = bytearray((tmp_path / "bad.zip").read_bytes())
    data[41:60] = b"\xff" * 19  # the deflate stream begins after a header of 30 bytes and the name
    (tmp_path / "bad.zip").write_bytes(data)
    assert "not a readable zip file" in refusal(tmp_path / "bad.zip")


def test_zip_that_is_too_large(bundle, tmp_path, monkeypatch):
    target = zipped(bundle, tmp_path / "painted.zip")
    monkeypatch.setattr(archive, "MAX_BYTES", 100)
    assert "too large" in refusal(target)


def test_damaged_zip_leaves_nothing(bundle, tmp_path, monkeypatch):
    target = zipped(bundle, tmp_path / "painted.zip")
    data = bytearray(target.read_bytes())
    data[60] ^= 0xFF  # within the first file's data: its checksum fails
    target.write_bytes(data)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "out"))
    refusal(target)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["painted"]


def test_what_a_killed_process_unpacked_is_removed_by_the_next(bundle, tmp_path, monkeypatch):
    target = zipped(bundle, tmp_path / "painted.zip")
    (tmp_path / "temporary").mkdir()
    code = (
        "import os, sys, signal, pathlib, dualproc_cli.bundle as bundle\n"
        "opened = bundle.Bundle.open(pathlib.Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    subprocess.run([sys.executable, "-c", code, target], env=environment, check=False)
    (left,) = (tmp_path / "temporary").glob("dualproc-bundle-*")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    one, two = Bundle.open(target), Bundle.open(target)
    assert not left.exists()
    assert one.folder.exists()
    del one, two
    assert os.listdir(tmp_path / "temporary") == []


def test_failed_write_leaves_the_old_bundle(bundle, loaded):
    def no_room(folder):
        raise OSError(28, "No space left on device")

    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="No space left"):
        write_bundle(
            bundle,
            loaded,
            save_adapter=no_room,
            arguments={},
            revisions=UNKNOWN,
            memory=(),
            metrics=metrics(5),
            outcome=Outcome(reason="steps", step=5, seconds=1),
            verdict=None,
            grid=Image.new("RGB", (4, 4)),
            samples={},
        )
    assert {path: path.read_bytes() for path in bundle.parent.rglob("*") if path.is_file()} == before


def test_bundles_are_copied_freely(bundle, tmp_path):
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    assert Bundle.open(copy).manifest == Bundle.open(bundle).manifest


def test_reading_needs_no_torch():
    code = "import sys, dualproc_cli.bundle, dualproc_cli.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("layout", "written"), [("diffusers", None), ("kohya", None), ("peft", "adapter_model.safetensors")]
)
def test_a_bundle_is_exported(small_spec, tmp_path, monkeypatch, layout, written):
    loaded = load_spec(small_spec(tmp_path))
    generator = load_generator(loaded.spec.generator, CPU)
    generator.add_adapter(loaded.spec.learn.adapter, 0)
    write(tmp_path / "bundle", loaded, generator)
    monkeypatch.chdir(tmp_path)
    command = ["bundle", "export", "bundle", "--format", layout]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    path = tmp_path / result.output.strip()
    with safe_open(path / written if written else path, framework="pt") as file:
        metadata = file.metadata()
    architecture = metadata["modelspec.architecture"], metadata["ss_base_model_version"]
    assert architecture == ("flux-1-schnell/lora", "flux1")
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "already exists" in again.output
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0
