"""Started with HF_ENDPOINT set: reads data sets from that hub, and prints one JSON list: of each, whether it was here
before, and what came of it.

Each argument is a JSON list (a data set, its repository or null for its own, the revision), or the word offline: from
there on the hub is not asked.
"""

import json
import sys
from dataclasses import replace

import datasets
import huggingface_hub

from reproduction.cells.resolve_paths import datasets as known
from reproduction.data import DataError
from reproduction.data.hub import cached
from reproduction.data.sources import load_from_hub

outcomes = []
for argument in sys.argv[1:]:
    if argument == "offline":
        huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        continue
    name, repository, revision = json.loads(argument)
    spec = known()[name]
    if repository is not None:
        spec = replace(spec, hub_id=repository, hub_config=None)
    here = cached(spec, revision)
    try:
        outcomes.append((here, load_from_hub(spec, next(iter(spec.splits)), revision=revision)))
    except DataError as error:
        outcomes.append((here, str(error)))
print(json.dumps(outcomes))
