"""What a running search shows: W&B runs and the terminal."""
