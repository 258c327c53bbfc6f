"""What goes with time and what stays: retention by one policy, and pruning by use, age, size and likeness."""
