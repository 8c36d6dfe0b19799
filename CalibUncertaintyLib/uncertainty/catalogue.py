"""The measures of uncertainty that there are, and what a person and the display need to know about each."""

import math
from collections.abc import Callable
from dataclasses import dataclass

LN2 = math.log(2.0)
_OF_REGIONS = "Bright: it is open for one or more structures whether the voxel lies in them; dark: it is clear for all."


@dataclass(frozen=True)
class Measure:
    """What a person and the display need to know about one measure.

    `largest(n_classes, n_members)` is the largest value it can take, of softmax heads, and `marked` the value from which
    a voxel is marked when the model has no stored threshold (our definition). `of_one` says that it looks at one structure
    only, whatever the heads. `needs_members` says that it is computed from the single members; fewer than
    `minimum_members` of them leave it without meaning. `sentence` says it for people, `of_regions` of sigmoid heads where
    that is another.
    """

    id: str
    title: str
    unit: str
    largest: Callable[[int, int], float]
    needs_members: bool
    sentence: str
    marked: float
    minimum_members: int = 1
    of_one: bool = False
    of_regions: str = ""

    def status(self, n_members: int) -> str:
        """"ok", or "single_member" when this many members cannot disagree."""
        return "ok" if n_members >= self.minimum_members else "single_member"

    def sentence_for(self, sigmoid: bool) -> str:
        """What bright and dark mean, in one sentence."""
        return self.of_regions if sigmoid and self.of_regions else self.sentence

    def upper(self, n_classes: int, n_members: int, sigmoid: bool = False) -> float:
        """The largest value it can take. Of sigmoid heads that of two classes: a mean over regions exceeds none of them."""
        return self.largest(2 if sigmoid else n_classes, n_members)

    def default_threshold(self, n_classes: int, sigmoid: bool = False) -> float:
        """The value from which a voxel is marked when the model has no stored threshold; our definition.

        Of sigmoid heads it is divided by their number, so that one region alone can mark a voxel: where nested regions
        end apart from each other, only one of them is in doubt.
        """
        return self.marked / n_classes if sigmoid and not self.of_one else self.marked


MEASURES: dict[str, Measure] = {
    measure.id: measure
    for measure in (
        Measure(
            "conf", "Lack of confidence", "probability",
            lambda classes, members: 1.0 - 1.0 / classes, False,
            "Bright: the structure shown here has a low probability; dark: the model is nearly sure of it.",
            0.25, of_regions=_OF_REGIONS,
        ),
        Measure(
            "margin", "Closeness of the runner-up", "probability",
            lambda classes, members: 1.0, False,
            "Bright: a second answer is almost as likely as the one shown; dark: no other answer comes close.",
            0.5, of_regions=_OF_REGIONS,
        ),
        Measure(
            "entropy", "Entropy", "nats",
            lambda classes, members: math.log(classes), False,
            "Bright: the probability is spread over several structures; dark: one answer holds nearly all of it.",
            0.5 * LN2, of_regions=_OF_REGIONS,
        ),
        Measure(
            "exp_entropy", "Expected entropy", "nats",
            lambda classes, members: math.log(classes), True,
            "Bright: each network by itself hesitates here, as at a blurred border; dark: each one is sure.",
            0.5 * LN2,
        ),
        Measure(
            "mi", "Mutual information", "nats",
            lambda classes, members: min(math.log(classes), math.log(max(members, 1))), True,
            "Bright: the networks contradict each other here; dark: they say the same.",
            0.05, minimum_members=2,
        ),
        Measure(
            "entropy_k", "Entropy of one structure", "nats",
            lambda classes, members: LN2, False,
            "Bright: it is open whether this voxel belongs to the chosen structure; dark: it is clearly in or out.",
            0.5 * LN2, of_one=True,
        ),
    )
}
