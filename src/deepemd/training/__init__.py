"""Training: pre-training as a classifier, meta-training on episodes, both resumable."""
