"""Print statistics of a base's ID-LoRA pivots and of a finished run's router and B.

python scripts/pivots.py model=llama3_2_3b scale=tiny
python scripts/pivots.py run=results/tiny/runs/<name>
"""

from reproduction.commands.pivots import Inspection, report_pivots
from reproduction.commands.script import hydra_command


@hydra_command("pivots")
def main(config):
    report_pivots(Inspection.from_config(config))


if __name__ == "__main__":
    main()
