"""Photos in, labels out: the classifier, its support set, its calibration, and its folder."""
