"""Train models: pre-training as a classifier and meta-training on episodes, both resumable."""
