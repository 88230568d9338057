"""Test every method of a table against the table's reference, paired by item, and print the tests.

    python scripts/stats.py table=table1 scale=tiny

Wilcoxon signed-rank as in the paper, exact McNemar beside it for right-or-wrong items, Holm over the family.
"""

import hydra
from omegaconf import DictConfig

from idlora.pipeline.compose import plain
from idlora.pipeline.request import Request, report_statistics
from idlora.pipeline.resolvers import register_resolvers
from idlora.pipeline.shell import command


@hydra.main(version_base="1.3", config_path="../configs", config_name="report")
@command
def main(config: DictConfig) -> None:
    requests = Request.from_config(plain(config))
    report_statistics([(request, request.plan()) for request in requests])


if __name__ == "__main__":
    register_resolvers()
    main()
