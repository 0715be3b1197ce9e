"""Known files: bodies of responses, compared with digests that lists have."""
