"""Photos in, labels out: DeepEMD as an estimator of scikit-learn."""

from deepemd.classifier.classifier import FewShotClassifier

__all__ = ["FewShotClassifier"]
