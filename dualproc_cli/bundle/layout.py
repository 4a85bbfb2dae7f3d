"""The names of the files in a bundle."""

from dualproc_cli.spec.weights_files import ADAPTER_FILE

ADAPTER = ADAPTER_FILE
SPEC = "spec.yaml"
MANIFEST = "bundle.json"
README = "README.md"
REPORT = "report.html"
SAMPLES = "samples"
GRID = f"{SAMPLES}/before-after.png"
