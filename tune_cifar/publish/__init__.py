"""Where the best model goes."""
