"""Files and grids: GeoTIFFs, bands, nodata, resampling, alignment, stretch, quantiles, maps that appear whole."""
