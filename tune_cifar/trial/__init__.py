"""One training run: data, model, loop and checkpoint; knows nothing of Ray or W&B."""
