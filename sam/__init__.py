"""The model: encodes a window once, generates its masks, averages features over regions."""
