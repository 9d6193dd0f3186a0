"""A Ray cluster of machines rented from Paperspace: what creates, finds and deletes them."""
