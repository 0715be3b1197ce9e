"""Recall and false matches of pictures by PDQ, and what a comparison costs."""
