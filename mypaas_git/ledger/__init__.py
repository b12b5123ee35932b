"""What was deployed, by whom, with which outcome: durable."""
