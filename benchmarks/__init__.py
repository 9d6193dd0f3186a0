"""Measurements of speed and quality, run by hand; the package never imports them."""
