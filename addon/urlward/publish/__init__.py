"""Publishing: lists for many nodes, in a folder or a bucket that any web server offers."""
