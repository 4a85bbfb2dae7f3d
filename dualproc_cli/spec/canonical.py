"""The canonical form of a spec, its digest, and the JSON Schema of control specs."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from dualproc_cli.spec.control import ControlSpec

# JSON allows these characters unescaped; YAML folds or refuses them.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def canonical(spec: ControlSpec | Mapping[str, Any]) -> str:
    """Return the spec as one line of JSON with sorted keys and every default written out.

    The line is also valid YAML. Loaded as a spec, it gives an equal one, even if presets have changed since.
    A spec of another version of dualproc has to be given as the data that this version wrote: read as a
    spec, it would get the keys that were added since.
    """
    data = spec.model_dump(mode="json") if isinstance(spec, ControlSpec) else spec
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(", ", ": "))
    return _NOT_IN_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def spec_digest(spec: ControlSpec | Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical form, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of control specs. ``load_spec`` checks all of it, and more.

    Every call returns the same object, which nobody changes.
    """
    schema = ControlSpec.model_json_schema(mode="validation")
    header = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:dualproc:control-spec:1",
        "title": "dualproc control spec",
    }
    plain = header | {key: value for key, value in schema.items() if key != "title"}
    return json.loads(json.dumps(plain))  # with lists for tuples, as whoever reads it as JSON gets it
