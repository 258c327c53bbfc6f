"""What an agent keeps from one step of a session to the next."""
