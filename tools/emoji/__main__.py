"""``python -m tools.emoji``: all stages in order; finished ones are skipped, interrupted ones continue."""

import argparse
import importlib

STAGES = ("data", "autoencoder", "scorer", "judge", "preference", "aesthetic", "denoiser", "flow", "evaluate", "card")


def main() -> None:
    """Run the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.emoji", description="Make emoji-64 and emoji-64-flow.")
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"some of {', '.join(STAGES)} (default: all)")
    chosen = parser.parse_args().stages or STAGES
    if unknown := set(chosen) - set(STAGES):
        parser.error(f"unknown stage {sorted(unknown)}; there are {', '.join(STAGES)}")
    for stage in STAGES:
        if stage in chosen:
            print(f"[{stage}]", flush=True)
            importlib.import_module(f"tools.emoji.{stage}").run()


if __name__ == "__main__":
    main()
