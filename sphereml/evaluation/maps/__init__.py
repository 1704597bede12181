"""Every model on the same held-out sky: flat patches and the sphere, templates, figures, report."""
