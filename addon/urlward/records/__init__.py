"""Records: events and their stores, the recorder, metrics and health."""
