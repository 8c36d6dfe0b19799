"""How far the members of an ensemble disagree, voxel by voxel: expected pairwise divergence, variance, split votes.

Arrays are class-first: probabilities of M members are (M, C, ...), means over the members (C, ...). Results are float32 of the
shape behind the class axis. Each measure comes as a function of all members' probabilities, and, named `..._of`, of the means
that `MemberStatistics` or the engine keep of members that are seen one at a time; both give the same.

Sigmoid heads (`sigmoid=True`): that of the two-class distribution (1 - p_c, p_c) of every region, averaged over the regions.
A single member has nobody to disagree with: every measure is 0 (`MEASURES[id].status(1)` is "single_member").
"""

from collections.abc import Mapping

import numpy as np

from .catalogue import MEASURES
from .chunks import flat_and_result, parts
from .member_statistics import MemberStatistics, mutual_information_of

# What each measure needs of the members beside their mean probability and mean entropy; see `member_statistics.EXTRAS`.
NEEDS = {"epkl": "log_probabilities", "rmi": "log_probabilities", "var": "squares", "varratio": "votes"}


def expected_pairwise_divergence(
    members_p: np.ndarray, sigmoid: bool = False, all_pairs_with_self: bool = False
) -> np.ndarray:
    """`epkl`: Kullback-Leibler divergence of one member from another, the mean over all ordered pairs of two members.

    1 / (M (M - 1)) sum_{m != n} KL(p_m || p_n) = M / (M - 1) sum_c [mean_m(p_mc ln p_mc) - mean_m(p_mc) mean_m(ln p_mc)], with
    ln p no less than ln 1e-7, so that a member that is sure does not make it infinite.

    :param members_p: (M, C, ...) probabilities of each member.
    :param all_pairs_with_self: average over all M^2 pairs, those of a member with itself (0) included: (M - 1) / M of it.
    :returns: (...) float32 in [0, -ln 1e-7 = 16.12], unit: nats.
    Source: Malinin & Gales 2021 (expected pairwise KL divergence); the limit under the logarithm is our definition.
    """
    kept = MemberStatistics.of(members_p, sigmoid, ["log_probabilities"])
    return expected_pairwise_divergence_of(
        kept.mean, kept.expected_entropy, kept.extras["log_probabilities"], kept.count, sigmoid, all_pairs_with_self
    )


def expected_pairwise_divergence_of(
    mean: np.ndarray,
    expected_entropy: np.ndarray,
    mean_log: np.ndarray,
    n_members: int,
    sigmoid: bool = False,
    all_pairs_with_self: bool = False,
) -> np.ndarray:
    """`expected_pairwise_divergence` from means over the members.

    :param mean: (C, ...) of their probabilities.
    :param expected_entropy: (...) of their entropies, nats.
    :param mean_log: (C, ...), sigmoid (2 C, ...): "log_probabilities" of `member_statistics.EXTRAS`.
    :param n_members: M; a single member gives 0 everywhere.
    :returns: (...) float32, as `expected_pairwise_divergence`.
    :raises ValueError: when the shapes do not fit.
    """
    flat, result = flat_and_result(mean)
    channels, shape = len(flat), np.shape(mean)[1:]
    _check_shape("expected entropies", expected_entropy, shape)
    _check_shape("mean logarithms", mean_log, ((2 if sigmoid else 1) * channels, *shape))
    expected, logs = np.asarray(expected_entropy).reshape(-1), np.asarray(mean_log).reshape(len(mean_log), -1)
    factor = 1.0 if all_pairs_with_self or n_members < 2 else n_members / (n_members - 1)
    upper = MEASURES["epkl"].upper(channels, n_members, sigmoid)
    for part in parts(result.shape[0] if n_members > 1 else 0):
        p, logarithm = flat[:, part], logs[:, part]
        crossed = np.einsum("cn,cn->n", p, logarithm[:channels])
        if sigmoid:
            crossed += np.einsum("cn,cn->n", np.subtract(1.0, p), logarithm[channels:])
            crossed /= channels
        np.clip(-factor * (expected[part] + crossed), 0.0, upper, out=result[part], casting="same_kind")
    if n_members < 2:
        result[...] = 0.0
    return result.reshape(shape)


def reverse_mutual_information(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """`rmi`: expected pairwise divergence less mutual information; grows where some member is surprised by the others.

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, 16.12], unit: nats; `epkl` = `mi` + `rmi`.
    Source: Malinin & Gales 2021 (reverse mutual information).
    """
    kept = MemberStatistics.of(members_p, sigmoid, ["log_probabilities"])
    return disagreement_of(kept.mean, kept.expected_entropy, kept.extras, kept.count, sigmoid)["rmi"]


def variance(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """`var`: the mean over classes of the variance over members of their probability (divided by M).

    :param members_p: (M, C, ...) probabilities of each member.
    :returns: (...) float32 in [0, (1 - 1/min(C, M)) / C], at most 1/4, unit: probability squared. Regions: both classes of
        each have the same variance, so the mean over the regions of it.
    Source: variance of the predictive probability, as in Kendall et al. 2017; the mean over classes is our definition.
    """
    kept = MemberStatistics.of(members_p, sigmoid, ["squares"])
    return variance_of(kept.mean, kept.extras["squares"], kept.count, sigmoid)


def variance_of(mean: np.ndarray, mean_squares: np.ndarray, n_members: int, sigmoid: bool = False) -> np.ndarray:
    """`variance` from means over the members.

    :param mean: (C, ...) of their probabilities.
    :param mean_squares: (...): "squares" of `member_statistics.EXTRAS`.
    :param n_members: M; a single member gives 0 everywhere.
    :returns: (...) float32, as `variance`; right to 1e-7 for two classes.
    :raises ValueError: when the shapes do not fit.
    """
    flat, result = flat_and_result(mean)
    _check_shape("mean squares", mean_squares, np.shape(mean)[1:])
    squares = np.asarray(mean_squares).reshape(-1)
    upper = MEASURES["var"].upper(len(flat), n_members, sigmoid)
    for part in parts(result.shape[0]):
        p = flat[:, part]
        over = (squares[part] - np.einsum("cn,cn->n", p, p)) / len(flat)
        np.clip(over, 0.0, upper if n_members > 1 else 0.0, out=result[part], casting="same_kind")
    return result.reshape(np.shape(mean)[1:])


def variation_ratio(members_p: np.ndarray, sigmoid: bool = False) -> np.ndarray:
    """`varratio`: the share of members that do not decide for the label that most of them decide for.

    :param members_p: (M, C, ...) probabilities of each member, which decides for its most probable class, the first of equals;
        of regions for inside where p > 0.5.
    :returns: (...) float32 in [0, 1 - ceil(M/C) / M] (sigmoid C = 2), unit: of the members.
    Source: variation ratio of Freeman 1965, as used by Gal 2016 (section 3.3.1).
    """
    kept = MemberStatistics.of(members_p, sigmoid, ["votes"])
    return variation_ratio_of(kept.extras["votes"], kept.count, sigmoid)


def variation_ratio_of(vote_share: np.ndarray, n_members: int, sigmoid: bool = False) -> np.ndarray:
    """`variation_ratio` from the share of members that decide for each class.

    :param vote_share: (C, ...): "votes" of `member_statistics.EXTRAS`.
    :param n_members: M; a single member gives 0 everywhere.
    :returns: (...) float32, as `variation_ratio`.
    """
    flat, result = flat_and_result(vote_share)
    upper = MEASURES["varratio"].upper(len(flat), n_members, sigmoid)
    for part in parts(result.shape[0]):
        share = flat[:, part]
        minority = np.minimum(share, np.subtract(1.0, share)).mean(axis=0) if sigmoid else 1.0 - share.max(axis=0)
        np.clip(minority, 0.0, upper, out=result[part], casting="same_kind")
    return result.reshape(np.shape(vote_share)[1:])


def disagreement_of(
    mean: np.ndarray,
    expected_entropy: np.ndarray,
    extras: Mapping[str, np.ndarray],
    n_members: int,
    sigmoid: bool = False,
) -> dict[str, np.ndarray]:
    """`mi`, and every other measure of disagreement that these means over the members allow.

    :param mean: (C, ...) of their probabilities.
    :param expected_entropy: (...) of their entropies, nats.
    :param extras: what else is known, see `member_statistics.EXTRAS`.
    :returns: (...) float32 each, zeros for a single member.
    """
    found = {"mi": mutual_information_of(mean, expected_entropy, n_members, sigmoid)}
    if "log_probabilities" in extras:
        found["epkl"] = expected_pairwise_divergence_of(
            mean, expected_entropy, extras["log_probabilities"], n_members, sigmoid
        )
        # the limit under the logarithm, and rounding, can leave it just below zero
        found["rmi"] = np.maximum(found["epkl"] - found["mi"], np.float32(0.0))
    if "squares" in extras:
        found["var"] = variance_of(mean, extras["squares"], n_members, sigmoid)
    if "votes" in extras:
        found["varratio"] = variation_ratio_of(extras["votes"], n_members, sigmoid)
    return found


def _check_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(values) != tuple(shape):
        raise ValueError(f"{name} of shape {np.shape(values)}, expected {tuple(shape)}")
