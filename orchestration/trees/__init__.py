"""Session trees: branches that share history and state with what they were made from, and merging them back."""
