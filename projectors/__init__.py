"""HOW the view is kept, along the road of a message: records → fold → apply, driven by projector."""
