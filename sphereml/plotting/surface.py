"""``sm.plot``: figures of maps, spectra and correlations; each returns a matplotlib Figure."""

from sphereml.plotting.colours import ColourScale, intensity_scale, residual_scale
from sphereml.plotting.maps import sky_panels as sky
from sphereml.plotting.spectra import correlation_curves as correlation
from sphereml.plotting.spectra import power_curves as power

__all__ = ["ColourScale", "correlation", "intensity_scale", "power", "residual_scale", "sky"]
