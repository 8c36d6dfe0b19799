"""The measures of uncertainty that there are, and what a person and the display need to know about each."""

import math
from collections.abc import Callable
from dataclasses import dataclass

LN2 = math.log(2.0)
LOG_CLIP = 1e-7  # what a probability counts as at least under a logarithm that would be infinite at 0
_OF_REGIONS = "Bright: it is open for one or more structures whether the voxel lies in them; dark: it is clear for all."


@dataclass(frozen=True)
class Measure:
    """What a person and the display need to know about one measure.

    `largest(n_classes, n_members)` is the largest value it can take, of softmax heads, and `marked` the value from which
    a voxel is marked when the model has no stored threshold (our definition). `of_one` says that it looks at one structure
    only, whatever the heads. `needs_members` says that it is computed from the single members; fewer than
    `minimum_members` of them leave it without meaning. `sentence` says it for people, `of_regions` of sigmoid heads where
    that is another. `scale_end` is where a colour scale ends, where hardly any voxel comes near the largest value.
    `mean_over_classes` says that it is a mean over classes, most of which have no part in a doubt between two of them:
    `marked` and `scale_end` are for two classes then, and shrink with their number.

    `stage` is "voxel" for what the probabilities of one voxel give, "context" for what needs the finished label map, too.
    `needs_law` says that it compares with what is usual, as calibration stored it (`ContextLaw`). `of_largest_entropy` says
    that it is in shares of the largest entropy, `marked` in nats. `relative` says that it compares places with places, whatever
    the heads: one doubtful region stands out as much as several. `off_borders` says that it is dark along borders by design, and
    looks for errors away from them: its threshold is fitted to these (to all errors it would flag everything, our definition).
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
    scale_end: float | None = None
    mean_over_classes: bool = False
    needs_law: bool = False
    stage: str = "voxel"
    of_largest_entropy: bool = False
    relative: bool = False
    off_borders: bool = False

    def status(self, n_members: int) -> str:
        """"ok", or "single_member" when this many members cannot disagree."""
        return "ok" if n_members >= self.minimum_members else "single_member"

    def sentence_for(self, sigmoid: bool) -> str:
        """What bright and dark mean, in one sentence."""
        return self.of_regions if sigmoid and self.of_regions else self.sentence

    def upper(self, n_classes: int, n_members: int, sigmoid: bool = False) -> float:
        """The largest value it can take. Of sigmoid heads that of two classes: a mean over regions exceeds none of them."""
        return self.largest(2 if sigmoid else n_classes, n_members)

    def shown(self, n_classes: int, n_members: int, sigmoid: bool = False) -> float:
        """Where its colour scale ends, the same for all patients, so that pictures of two of them can be compared."""
        upper = self.upper(n_classes, n_members, sigmoid)
        return upper if self.scale_end is None else min(upper, self.scale_end * self._share(n_classes, sigmoid))

    def default_threshold(self, n_classes: int, sigmoid: bool = False) -> float:
        """The value from which a voxel is marked when the model has no stored threshold; our definition.

        Of sigmoid heads it is divided by their number, so that one region alone can mark a voxel: where nested regions
        end apart from each other, only one of them is in doubt.
        """
        marked = self.marked * self._share(n_classes, sigmoid)
        return marked / n_classes if sigmoid and not (self.of_one or self.relative) else marked

    def _share(self, n_classes: int, sigmoid: bool) -> float:
        if self.of_largest_entropy:
            return 1.0 / math.log(2 if sigmoid else n_classes)
        return 2.0 / n_classes if self.mean_over_classes and not sigmoid else 1.0


# Where half of the members say 10 % and the other half 90 %, `mi` is 0.37 nats, `epkl` 0.88 and more, `rmi` 0.51 and more, and
# `var` 0.16: there their colour scales end, for a reader sees nothing on a scale of 16 nats. They are marked from where the one
# half says 34 % and the other 66 %: mi 0.05, epkl 0.15, rmi 0.1, var 0.025.
#
# Distance-aware entropy is marked where the entropy is, which it equals far from every border. `ebcu` is 0.109 on average by
# chance; at 0.25 the neighbourhood is, all in all, as open as the most open tenth of right voxels at such places. `ebcu_p` is
# marked where one in twenty voxels of the calibration cases is.


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
            0.05, minimum_members=2, scale_end=0.4,
        ),
        Measure(
            "epkl", "Expected pairwise divergence", "nats",
            lambda classes, members: -math.log(LOG_CLIP) if members > 1 else 0.0, True,
            "Bright: what one network says would surprise another one here; dark: any two of them say the same.",
            0.15, minimum_members=2, scale_end=1.0,
        ),
        Measure(
            "rmi", "Reverse mutual information", "nats",
            lambda classes, members: -math.log(LOG_CLIP) if members > 1 else 0.0, True,
            "Bright: some network rules out what the others together hold possible; dark: none of them does.",
            0.1, minimum_members=2, scale_end=0.6,
        ),
        Measure(
            # sum_c var_c = mean |p_m|^2 - |mean p|^2, where |mean p|^2 is at least 1/C, and at least mean |p_m|^2 / M
            "var", "Variance among the networks", "probability squared",
            lambda classes, members: (1.0 - 1.0 / min(classes, max(members, 1))) / classes, True,
            "Bright: the probabilities that the networks give are far apart; dark: they are nearly equal.",
            0.025, minimum_members=2, scale_end=0.16, mean_over_classes=True,
        ),
        Measure(
            # of M votes for C classes some class has at least ceil(M / C)
            "varratio", "Split vote", "of the networks",
            lambda classes, members: 1.0 - math.ceil(members / classes) / members if members > 0 else 0.0, True,
            "Bright: many networks draw another structure here than most of them do; dark: all draw the same.",
            0.15, minimum_members=2,
        ),
        Measure(
            "entropy_k", "Entropy of one structure", "nats",
            lambda classes, members: LN2, False,
            "Bright: it is open whether this voxel belongs to the chosen structure; dark: it is clearly in or out.",
            0.5 * LN2, of_one=True,
        ),
        Measure(
            "dae", "Entropy away from borders", "of the largest entropy",
            lambda classes, members: 1.0, False,
            "Bright: it is open what lies here, and no border is near that would explain it; dark: it is clear, or at a border.",
            0.5 * LN2, off_borders=True, stage="context", of_largest_entropy=True,
        ),
        Measure(
            "dae_linear", "Entropy away from borders, linear", "of the largest entropy",
            lambda classes, members: 1.0, False,
            "Bright: it is open what lies here, some millimetres or more from any border; dark: it is clear, or at a border.",
            0.5 * LN2, off_borders=True, stage="context", of_largest_entropy=True,
        ),
        Measure(
            "dae_resid", "Entropy above the usual", "of the largest entropy",
            lambda classes, members: 1.0, False,
            "Bright: the entropy lies far above what is usual so far from a border; dark: it is as usual, or lower.",
            0.5 * LN2, needs_law=True, stage="context", of_largest_entropy=True,
        ),
        Measure(
            "ebcu", "Unusual for its surroundings", "of the strongest exceedance",
            lambda classes, members: 1.0, False,
            "Bright: all around here the model is less sure than it usually is at such places; dark: it is as sure as ever.",
            0.25, needs_law=True, off_borders=True, stage="context", relative=True,
        ),
        Measure(
            "ebcu_p", "Unusual for its surroundings, rank", "of calibration voxels",
            lambda classes, members: 1.0, False,
            "Bright: hardly any place like this in the calibration cases was as unusual; dark: most of them were more so.",
            0.95, needs_law=True, off_borders=True, stage="context", relative=True,
        ),
        Measure(
            "ebcu_self", "Unusual within this patient", "of the strongest exceedance",
            lambda classes, members: 1.0, False,
            "Bright: all around here the model is less sure than at other such places of this patient; dark: it is as sure.",
            0.25, off_borders=True, stage="context", relative=True,
        ),
    )
}
