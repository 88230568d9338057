"""Scaffold a method of your own: code, closed form, registration, config, and a table beside LoRA.

python scripts/new_method.py mylora
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from reproduction.cli import command
from reproduction.commands.new_method import new_method, next_steps


@command
def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("name", help="an identifier in lower case, such as mylora")
    name = parser.parse_args().name
    print("written: " + ", ".join(new_method(name)))
    print(f"next (docs/adding.md goes on from there):\n{next_steps(name)}")
    print(f"its runs are found by their config: after a change of its code raise protocol_version in {name}.yaml")


if __name__ == "__main__":
    main()
