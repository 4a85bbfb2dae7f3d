"""The names of the files in a bundle."""

ADAPTER = "pytorch_lora_weights.safetensors"
SPEC = "spec.yaml"
MANIFEST = "bundle.json"
README = "README.md"
SAMPLES = "samples"
GRID = f"{SAMPLES}/before-after.png"
