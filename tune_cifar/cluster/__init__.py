"""Several machines as one Ray cluster: machines that you have, and machines that are rented."""
