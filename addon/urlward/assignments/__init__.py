"""Who had an address, or some of its ports, at what time: from leases, accounting and translators' logs."""
