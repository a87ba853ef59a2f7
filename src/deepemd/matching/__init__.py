"""Two node sets become a logit."""

from deepemd.matching.baselines import local_knn_logits, protonet_logits
from deepemd.matching.cost import centred_cosine_cost, cross_reference_weights, uniform_weights
from deepemd.matching.head import Problem, Weights, emd_logits, transport_problem
from deepemd.matching.prototypes import class_means, fit_prototypes

__all__ = [
    "Problem",
    "Weights",
    "centred_cosine_cost",
    "class_means",
    "cross_reference_weights",
    "emd_logits",
    "fit_prototypes",
    "local_knn_logits",
    "protonet_logits",
    "transport_problem",
    "uniform_weights",
]
