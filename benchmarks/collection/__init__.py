"""What collecting outcomes is measured by: calls a second, kills, memory."""
