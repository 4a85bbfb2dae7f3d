"""The cases: a kind of input, how it is made hostile or broken, and what is done with it."""

import io
import json
import os
import random
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from dualproc_cli.bundle import Outcome, Revisions, write_bundle
from dualproc_cli.bundle.manifest import whole_digest
from dualproc_cli.files import digest
from dualproc_cli.generator.adapter_file import AdapterFile
from dualproc_cli.learning.checkpoint import Best, Checkpoint
from dualproc_cli.metrics import StepMetrics
from dualproc_cli.picture_files import load_picture
from dualproc_cli.spec import load_spec, spec_digest
from hostile.mutate import TEXTS, VALUES, as_json, changed_bytes, changed_values, paths
from hostile.watch import Watch

SPEC = """\
version: 1
name: hostile
description: what is mutated
generator: {model: ./no-such-model, width: 64, height: 64, steps: 1, dtype: float32}
vlm: {model: ./no-such-model}
prompts: {train: [a house in a field, a tree], held_out: [a ball]}
visual_prompts:
  target: {type: line, orientation: horizontal, position: 0.65, color: red}
  brand: {type: palette, colors: ["#1b3a4b", red], edge: bottom, size: 0.12}
  depth: {type: points, points: [{label: A, x: 0.3, y: 0.6}], color: red}
  area: {type: box, left: 0.5, top: 0.4, right: 1.0, bottom: 1.0}
  painting: {type: image, path: pictures/painting.png, mode: transparent, opacity: 0.5}
questions:
  - {name: one, question: "Is it?", answer: "Yes", alternatives: ["No"], visual_prompt: target}
  - {name: two, question: "Is it so?", answer: "No", visual_prompt: painting, region: {left: 0.1, right: 0.9}}
learn: {steps: 10, batch_size: 2, adapter: {rank: 2, scale: 1.0}, keep: {picture: 1.0}}
evaluate: {seeds: 2, vlm: {model: ./other, trust_remote_code: false}, measures: [
  {type: distance, name: near, at_most: 0.1}, {type: palette, name: colors, target: brand}]}
"""
PICTURES = {"p.png": "PNG", "p.jpg": "JPEG", "p.webp": "WEBP"}
OTHERS = ("EPS", "BMP", "TIFF", "GIF", "ICO", "PPM", "PDF", "ICNS", "PCX", "SGI", "TGA")


class Material:
    """What is mutated: a spec, its bundle as a folder and as a zip, a checkpoint and pictures, all valid."""

    def __init__(self, folder: Path) -> None:
        """Write the material into ``folder``."""
        self.folder = folder
        (folder / "pictures").mkdir(parents=True)
        picture = Image.effect_noise((64, 64), 90).convert("RGB")
        picture.save(folder / "pictures" / "painting.png")
        for name, kind in PICTURES.items():
            picture.save(folder / name, kind)
        (folder / "spec.yaml").write_text(SPEC)
        self.loaded = load_spec(folder / "spec.yaml")
        names = [question.name for question in self.loaded.spec.questions]
        self.metrics = [
            StepMetrics(
                step=step,
                phase="weights",
                loss=1.0,
                keep=0.1,
                losses=dict.fromkeys(names, 0.5),
                probabilities=dict.fromkeys(names, 0.5),
                gradient_norm=1.0,
                learning_rate=0.1,
            )
            for step in range(1, 4)
        ]
        layers = {"to_q.lora_A.weight": torch.rand(2, 8), "to_q.lora_B.weight": torch.rand(8, 2)}
        write_bundle(
            folder / "bundle",
            self.loaded,
            save_adapter=AdapterFile("transformer", "lora", 2, layers).write,
            arguments={"width": 64},
            revisions=Revisions(generator=None, vlm=None, evaluate_vlm=None),
            memory=(),
            metrics=self.metrics,
            outcome=Outcome(reason="steps", step=3, seconds=1.0),
            verdict=None,
            grid=picture,
            samples={"a-house-0.png": picture},
        )
        self.checkpoint = Checkpoint(
            spec_digest="d",
            metrics=self.metrics,
            validations=[],
            rng=torch.Generator().manual_seed(3).get_state(),
            phase="weights",
            adapter=layers,
            steering={},
            words={"a house": "a ball"},
            start={},
            moments=[(torch.rand(2, 8), torch.rand(2, 8))],
            best=Best(1, 0.25, {key: tensor.clone() for key, tensor in layers.items()}, {}),
        )
        self.checkpoint.write(folder / "checkpoint")
        files = io.BytesIO()
        with zipfile.ZipFile(files, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted((folder / "bundle").rglob("*")):
                file.write(path, path.relative_to(folder).as_posix())
        self.zipped = files.getvalue()


def spec_text(material: Material, watch: Watch, rng: random.Random) -> None:
    """The text of a spec, with places flipped, cut, doubled or overwritten."""
    _specs_folder(material)
    Path("spec.yaml").write_bytes(changed_bytes(SPEC.encode(), rng))
    watch.command("check", "spec.yaml")


def spec_values(material: Material, watch: Watch, rng: random.Random) -> None:
    """A spec with hostile values, read by `check` in either form."""
    _specs_folder(material)
    data = changed_values(yaml.safe_load(SPEC), rng)
    Path("spec.yaml").write_text(as_json(data), "utf-8", errors="surrogatepass")
    watch.command("check", "spec.yaml", *rng.choice([(), ("--json",)]))


def override(material: Material, watch: Watch, rng: random.Random) -> None:
    """One to three values of ``--set``; `learn` ends where its models are looked for."""
    _specs_folder(material)
    Path("spec.yaml").write_text(SPEC)
    known = [".".join(map(str, path)) for path in paths(yaml.safe_load(SPEC)) if path]
    settings = []
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([rng.choice(known), rng.choice(TEXTS), "a." * rng.choice([3, 5000]) + "b"])
        value = rng.choice([as_json(rng.choice(VALUES)), rng.choice(TEXTS), rng.choice("[{") * 5000])
        settings += ["--set", f"{key}={value}".replace("\0", "")]
    if watch.command("check", "spec.yaml", *settings) == 0:
        watch.command("learn", "spec.yaml", "-o", "out", "--device", "cpu", *settings)


def bundle_manifest(material: Material, watch: Watch, rng: random.Random) -> None:
    """A bundle whose maker computed every digest anew after changing values of ``bundle.json``."""
    shutil.copytree(material.folder / "bundle", "b")
    path = Path("b", "bundle.json")
    data = json.loads(path.read_text())
    if rng.random() < 0.5:
        data["spec"] = changed_values(data["spec"], rng)
    else:
        data = changed_values(data, rng)
    if isinstance(data, dict):
        try:
            data["spec_digest"] = spec_digest(data["spec"])
        except Exception:  # such a spec has no digest
            data.setdefault("spec_digest", "0" * 64)
        try:
            data["digest"] = whole_digest(data)
        except ValueError:
            data["digest"] = "0" * 64
    path.write_text(json.dumps(data))
    _use_bundle(watch, "b")


def bundle_files(material: Material, watch: Watch, rng: random.Random) -> None:
    """A bundle of which a file is missing, added, damaged, a link, a pipe or a folder, perhaps listed so."""
    shutil.copytree(material.folder / "bundle", "b")
    files = sorted(path for path in Path("b").rglob("*") if path.is_file())
    path = rng.choice(files)
    content = path.read_bytes()
    damaged = changed_bytes(content, rng)
    changes: list[Callable[[], Any]] = [
        path.unlink,
        lambda: path.write_bytes(damaged),
        lambda: path.write_bytes(damaged),
        lambda: (path.unlink(), os.mkfifo(path)),
        lambda: (path.unlink(), path.symlink_to(rng.choice(["/dev/zero", "b", "none"]))),
        lambda: (path.unlink(), path.mkdir()),
        lambda: Path("b", rng.choice(["extra", ".hidden", "a\x1b[2J", "n" * 200, "spec.yml"])).touch(),
        lambda: os.mkfifo("b/pipe"),
    ]
    rng.choice(changes)()
    if path.name != "bundle.json" and path.is_file() and not path.is_symlink() and rng.random() < 0.8:
        manifest = Path("b", "bundle.json")
        data = json.loads(manifest.read_text())
        data["files"][path.relative_to("b").as_posix()] = digest(path)
        manifest.write_text(json.dumps(data | {"digest": whole_digest(data)}))
    _use_bundle(watch, "b")


def zipped(material: Material, watch: Watch, rng: random.Random) -> None:
    """A zip of a bundle with damaged bytes, or with entries that no bundle has."""
    path = Path("b.zip")
    if rng.random() < 0.6:
        path.write_bytes(changed_bytes(material.zipped, rng))
    else:
        path.write_bytes(material.zipped)
        with zipfile.ZipFile(path, "a") as file:
            for _ in range(rng.randint(1, 3)):
                entry = zipfile.ZipInfo(rng.choice([*TEXTS, "bundle/spec.yaml", "bundle/"]) or "x")
                entry.compress_type = rng.choice([0, 8, 12, 14])
                kind = rng.choice([stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
                entry.external_attr = (kind | 0o777) << 16
                try:
                    file.writestr(entry, rng.choice(["../../secret.png", "x" * 10_000]))
                except (UnicodeEncodeError, ValueError):
                    continue
    _use_bundle(watch, "b.zip")


def checkpoint_bytes(material: Material, watch: Watch, rng: random.Random) -> None:
    """A damaged checkpoint: refused, or equal to what was written."""
    path, content = Path("checkpoint"), (material.folder / "checkpoint").read_bytes()
    path.write_bytes(changed_bytes(content, rng))
    read = watch.call(Checkpoint.read, path)
    if read is not None:
        before = material.checkpoint
        same = read.metrics == before.metrics and torch.equal(read.rng, before.rng)
        for one, other in ((read.adapter, before.adapter), (read.best.adapter, before.best.adapter)):
            same &= one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
        same &= all(torch.equal(*pair) for pair in zip(read.moments[0], before.moments[0], strict=True))
        if not same:
            watch.found.append(("unnoticed change", "a checkpoint"))


def adapter_bytes(material: Material, watch: Watch, rng: random.Random) -> None:
    """An adapter's file with damaged bytes, as `sample` reads it from a bundle that lists it so."""
    name = "pytorch_lora_weights.safetensors"
    content = (material.folder / "bundle" / name).read_bytes()
    Path(name).write_bytes(changed_bytes(content, rng))
    watch.call(AdapterFile.read, Path())


def picture(material: Material, watch: Watch, rng: random.Random) -> None:
    """A damaged picture, one of another format by a known name, or something else than a file."""
    path = Path(rng.choice(list(PICTURES)))
    chance = rng.random()
    if chance < 0.8:
        path.write_bytes(changed_bytes((material.folder / path).read_bytes(), rng))
    elif chance < 0.97:
        mode = rng.choice(["RGB", "L"])
        Image.new(mode, (64, 64)).save(path, rng.choice(OTHERS))
    else:
        os.mkfifo(path)
    watch.call(load_picture, path)


def arguments(material: Material, watch: Watch, rng: random.Random) -> None:
    """Hostile words where commands expect files, names and numbers."""
    _specs_folder(material)
    Path("spec.yaml").write_text(SPEC)
    word = rng.choice(
        [text for text in TEXTS if "\0" not in text and "outside" not in text and "secret" not in text]
    )
    command = rng.choice(
        [
            ("check", word),
            ("check", "spec.yaml", word),
            ("bundle", "show", word),
            ("bundle", "verify", word, "--json"),
            ("sample", word, "--model", "./no-such-model"),
            ("sample", "a house", "--model", word or "./no", "-o", "out"),
            ("sample", "--control", word),
            ("sample", "--control", f"spec.yaml@{word}"),
            ("score", word, "--spec", "spec.yaml"),
            ("score", "p.png", "--spec", word),
            ("evaluate", word),
            ("evaluate", word, word),
            ("report", word),
            ("learn", word),
            ("init", "spec.yaml"),
            ("init", "new.yaml", "--from", word),
            ("diff", "spec.yaml", word),
            ("bundle", "diff", word, word),
            (word,),
            ("check", f"--{word}"),
        ]
    )
    if "miniature" not in command:  # that is a model which would draw
        watch.command(*command)


CASES = (
    spec_text,
    spec_values,
    override,
    bundle_manifest,
    bundle_files,
    zipped,
    checkpoint_bytes,
    adapter_bytes,
    picture,
    arguments,
)


def _specs_folder(material: Material) -> None:
    shutil.copytree(material.folder / "pictures", "pictures")


def _use_bundle(watch: Watch, path: str) -> None:
    """Do what a user does with a bundle; drawing ends where its generator is looked for."""
    if watch.command("bundle", "show", path) == 0:
        watch.command("bundle", "show", path, "--json")
        watch.command("bundle", "verify", path)
        watch.command("sample", "a house", "--control", path, "--device", "cpu")
        watch.command("evaluate", path, "--device", "cpu")
        watch.command("report", path, "-o", "report.html", "--device", "cpu")
