"""The options that most verbs share: which members are asked, how they become one answer, and how they are computed."""

from __future__ import annotations

import argparse

from .cli_help import COMPUTING, MEMBERS

_MOST_DIGITS = 9  # of a fold's number


def member_options() -> argparse.ArgumentParser:
    """Which members are asked."""
    parent = argparse.ArgumentParser(add_help=False)
    members = parent.add_argument_group(MEMBERS)
    members.add_argument(
        "--folds", nargs="+", default="all", metavar="FOLD", action=_Folds,
        help="fold numbers with spaces between them, or all (default)",
    )  # fmt: skip
    members.add_argument(
        "--checkpoints",
        nargs="+",
        metavar="FILE",
        help="checkpoint files of each fold, patterns in quotes such as 'checkpoint_cycle*', or all (default:"
        " checkpoint_final.pth); each is a member",
    )
    members.add_argument(
        "--flips",
        choices=["mean", "off", "members"],
        default="mean",
        help="mean: nnU-Net's mirroring, averaged inside each member (default); off: none, and faster; members: each flip is a"
        " member of its own",
    )
    members.add_argument("--no-mirroring", dest="mirroring", action="store_false", help="the same as --flips off")
    members.add_argument(
        "--dropout",
        type=int,
        default=0,
        metavar="N",
        help="ask each network N times with its dropout active, each time a member (default 0: dropout off)",
    )
    members.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of the dropout's random numbers (default 0); the same seed repeats",
    )
    members.add_argument(
        "--insert-dropout",
        type=float,
        metavar="P",
        help="put dropout of rate P, between 0 and 1, into a network trained without; this makes probabilities worse",
    )
    return parent


def pooling_options() -> argparse.ArgumentParser:
    """How they are pooled."""
    parent = argparse.ArgumentParser(add_help=False)
    pooling = parent.add_argument_group(MEMBERS)
    pooling.add_argument(
        "--mode",
        choices=["pool_logit", "pool_prob", "shared", "member"],
        default="pool_logit",
        help="how they become one answer. pool_logit (default): the mean of their logits, whose labels are stock nnU-Net's;"
        " pool_prob: the mean of their probabilities; both are calibrated after the mean. shared, member: every member is"
        " calibrated before the mean, all by one temperature or each by its own",
    )
    return parent


def computing_options() -> argparse.ArgumentParser:
    """How they are computed."""
    parent = argparse.ArgumentParser(add_help=False)
    computing = parent.add_argument_group(COMPUTING)
    computing.add_argument(
        "--device", default="auto", help="auto (default): a GPU if PyTorch finds one; or cpu, cuda, cuda:1, mps"
    )
    computing.add_argument(
        "--precision",
        choices=["stock", "bf16"],
        default="stock",
        help="stock: as nnU-Net computes (default); bf16: half the bits, faster on CPUs that have it, and it is counted how many"
        " labels differ",
    )
    computing.add_argument(
        "--step-size", type=float, default=0.5, metavar="PART",
        help="how far the sliding window moves, as a part of the patch, 0.05 to 1 (default 0.5, as nnU-Net; larger is faster and"
        " less exact)",
    )  # fmt: skip
    computing.add_argument(
        "--trainers",
        metavar="DIR",
        help="folder with the .py files of custom trainer classes; their code is run (default: none)",
    )
    computing.add_argument(
        "--previous",
        metavar="DIR",
        help="model of a cascade's first stage (default: looked for beside the second's folder)",
    )
    computing.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="read checkpoints that hold more than plain data, and build networks of other packages that the plans name",
    )
    return parent


class _Folds(argparse.Action):
    """`--folds 0 1`, `--folds all`; "all" among numbers is a mistake."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if values == ["all"]:
            setattr(namespace, self.dest, "all")
        elif all(value.isdecimal() and len(value) <= _MOST_DIGITS for value in values):
            setattr(namespace, self.dest, [int(value) for value in values])
        else:
            parser.error(f"{option_string}: give fold numbers with spaces between them, or all")
