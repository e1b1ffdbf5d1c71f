"""Raster files and grids: GeoTIFFs, bands, nodata, resampling, alignment, stretch, quantiles, maps."""
