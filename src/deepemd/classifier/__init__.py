"""DeepEMD as a scikit-learn estimator: photos in, labels out."""

from deepemd.classifier.classifier import FewShotClassifier

__all__ = ["FewShotClassifier"]
