"""Match two node sets and return a logit."""

from deepemd.matching.baselines import fusion_logits, local_knn_logits, matching_net_logits, protonet_logits
from deepemd.matching.classifiers import cosine_classifier_logits, linear_logits
from deepemd.matching.cost import centred_cosine_cost, cross_reference_weights, uniform_weights
from deepemd.matching.head import Problem, Weights, emd_logits, transport_problem
from deepemd.matching.moments import NodeMoments
from deepemd.matching.prototypes import class_means, fit_prototypes
from deepemd.matching.ridge import Ridge, fit_ridge, ridge_from, ridge_logits
from deepemd.matching.shots import mean_over_shots, nearest_shot
from deepemd.matching.whitening import Whitening, whiten, whitening_from

__all__ = [
    "NodeMoments",
    "Problem",
    "Ridge",
    "Weights",
    "Whitening",
    "centred_cosine_cost",
    "class_means",
    "cosine_classifier_logits",
    "cross_reference_weights",
    "emd_logits",
    "fit_prototypes",
    "fit_ridge",
    "fusion_logits",
    "linear_logits",
    "local_knn_logits",
    "matching_net_logits",
    "mean_over_shots",
    "nearest_shot",
    "protonet_logits",
    "ridge_from",
    "ridge_logits",
    "transport_problem",
    "uniform_weights",
    "whiten",
    "whitening_from",
]
