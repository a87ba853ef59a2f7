"""Few-shot image classification by an exact, differentiable Earth Mover's Distance between the parts of images."""
