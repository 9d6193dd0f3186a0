"""Sweep file to typed config, search space and searcher; knows nothing of Ray."""
