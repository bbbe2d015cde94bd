"""What was decided: one decision, a batch of them, why, and at which tau another candidate takes over."""
