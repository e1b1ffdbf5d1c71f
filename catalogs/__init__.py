"""Events from STAC catalogs: search, choose dates, fetch the part that is needed, write an event folder."""
