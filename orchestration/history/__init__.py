"""What is said in sessions: their histories (`history.py`), and the windows of them that models are shown."""
