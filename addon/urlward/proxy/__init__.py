"""The data path: mitmproxy addon, block page, runner."""
