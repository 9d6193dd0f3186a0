"""What a finished search leaves to read: tables and summary."""
