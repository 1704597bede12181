"""Where batches come from: skies on disk and simulated ones, places drawn on them, lensed patches."""
